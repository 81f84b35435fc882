import itertools

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from ppvit_jax.audit.solvers.channel_keys import solve, solve_each
from ppvit_jax.encryption import PixelEncryption
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

HEIGHT, WIDTH = 40, 48
CORNERS = [(0, 0), (120, 200), (200, 60), (60, 400), (250, 300)]
PIXEL = PixelEncryption(block_size=1)


def crops():
    photos = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    return np.stack([photo[y : y + HEIGHT, x : x + WIDTH] for photo in photos for y, x in CORNERS])


def aligned(images, guessed):
    """Returns the guess under the best channel order and inversion, and the fraction of pixels that agree."""
    choices = [
        guessed[..., order] ^ np.uint8(mask)
        for mask, order in itertools.product((0, 255), map(list, itertools.permutations(range(3))))
    ]
    best = min(choices, key=lambda choice: np.abs(choice.astype(int) - images).mean())
    return best, (best == images).all(-1).mean()


def encrypted_by(method, number, images, numbers=None):
    secret = method.derive(SecretKey(bytes([number] * 32)), height=HEIGHT, width=WIDTH)
    return method.encrypt(images, secret, numbers)


@pytest.mark.parametrize("color", [True, False])
@pytest.mark.parametrize("number", range(3))
def test_shared_keys_are_found(color, number):
    method, images = PixelEncryption(block_size=1, colour=color), crops()
    encrypted = encrypted_by(method, number, images)
    assert aligned(images, encrypted)[1] < 0.2
    secret = solve(method, encrypted)
    assert secret["index"].dtype == np.int32 and secret["mask"].dtype == np.uint8
    assert aligned(images, method.decrypt(encrypted, secret))[1] > 0.97


def test_keys_of_each_image_show_its_outlines():
    method, images = PixelEncryption(block_size=1, keys="per_image"), crops()[5:8]
    encrypted = encrypted_by(method, 4, images, np.arange(3, dtype=np.uint32))
    secrets = solve_each(method, encrypted)
    assert len(secrets) == 3
    for image, cipher, secret in zip(images, encrypted, secrets, strict=True):
        guessed = PIXEL.decrypt(cipher, secret).astype(int)

        def roughness(picture):
            return np.abs(np.diff(picture.astype(int), axis=0)).mean()

        assert roughness(cipher) > 3 * roughness(guessed)
        assert roughness(guessed) < 2 * roughness(image)


def test_secret_undoes_what_it_does():
    encrypted = encrypted_by(PIXEL, 6, crops())
    secret = solve(PIXEL, encrypted)
    np.testing.assert_array_equal(PIXEL.encrypt(PIXEL.decrypt(encrypted, secret), secret), encrypted)
    # Channels only change places inside their pixels.
    np.testing.assert_array_equal(secret["index"] // 3, np.arange(HEIGHT * WIDTH * 3) // 3)


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 1, 5, 3), (1, 4, 1, 3)])
def test_thin_and_flat_images_give_a_secret(shape):
    secret = solve(PIXEL, np.full(shape, 200, np.uint8))
    assert sorted(secret["index"].tolist()) == list(range(np.prod(shape[1:])))


def test_mistakes_are_refused():
    with pytest.raises(UserError, match="key for every image"):
        solve(PixelEncryption(block_size=1, keys="per_image"), np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="images, height, width, 3"):
        solve(PIXEL, np.zeros((4, 4, 3), np.uint8))
