import itertools

import numpy as np
import pytest
from helpers.marks import mark_slow
from sklearn.datasets import load_sample_image

from ppvit_jax.audit.solvers.turned_blocks import solve
from ppvit_jax.encryption import EncryptionThenCompression
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

HEIGHT, WIDTH = 96, 128
CORNERS = [(0, 0), (120, 200), (200, 60), (60, 400)]


def crops(height=HEIGHT, width=WIDTH):
    photos = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    return np.stack([photo[y : y + height, x : x + width] for photo in photos for y, x in CORNERS])


def alike(images, guessed):
    """Returns the fraction of equal pixels under the best rotation, flip, inversion and channel order of all images."""
    parts = []
    for turns, flip, mask, order in itertools.product(
        range(4), (1, -1), (0, 255), map(list, itertools.permutations(range(3)))
    ):
        turned = np.rot90(guessed, turns, axes=(1, 2))[:, :, ::flip][..., order] ^ np.uint8(mask)
        if turned.shape == images.shape:
            parts.append((turned == images).all(-1).mean())
    return max(parts)


def attack(number, images, **options):
    method = EncryptionThenCompression(block_size=16, **options)
    encrypted = method.encrypt(images, method.derive(SecretKey(bytes([number] * 32)), height=HEIGHT, width=WIDTH))
    assert alike(images, encrypted) < 0.2
    secret = solve(method, encrypted)
    assert secret["index"].dtype == np.int32 and secret["mask"].dtype == np.uint8
    assert sorted(secret["index"].tolist()) == list(range(images[0].size))
    return method.decrypt(encrypted, secret)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2))
def test_blocks_return_to_their_places_upright(number):
    images = crops()
    assert alike(images, attack(number, images)) == 1


@pytest.mark.parametrize(
    "options",
    mark_slow(
        [
            {"rotation": False},
            {"negative_positive": False, "channels": "none"},
            {"rotation": False, "negative_positive": False, "channels": "none"},
            {"shared": True},
            {"sub_block_size": 8, "rotation": False, "channels": "none"},
        ],
        but=[{"rotation": False, "negative_positive": False, "channels": "none"}],
    ),
)
def test_blocks_return_under_other_options(options):
    images = crops()
    assert alike(images, attack(5, images, **options)) > 0.99


@pytest.mark.slow
def test_square_frame_and_the_same_secret_again():
    images = crops(128, 128)[::2]
    method = EncryptionThenCompression(block_size=16)
    encrypted = method.encrypt(images, method.derive(SecretKey(bytes([9] * 32)), height=128, width=128))
    secret, again = (solve(method, encrypted, seed=3) for _ in range(2))
    assert alike(images, method.decrypt(encrypted, secret)) == 1
    np.testing.assert_array_equal(secret["index"], again["index"])
    np.testing.assert_array_equal(secret["mask"], again["mask"])


@pytest.mark.slow
def test_noise_is_not_recovered():
    images = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    assert alike(images, attack(1, images)) < 0.3


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"channels": "legacy"}, (1, 32, 32, 3), "destroys information"),
        ({"channels": "published"}, (1, 32, 32, 3), "destroys information"),
        ({}, (32, 32, 3), "images, height, width, 3"),
        ({}, (1, 40, 32, 3), "does not divide into blocks"),
        ({"sub_block_size": 1}, (1, 32, 32, 3), "no edges"),
    ],
)
def test_mistakes_are_refused(options, shape, message):
    with pytest.raises(UserError, match=message):
        solve(EncryptionThenCompression(block_size=16, **options), np.zeros(shape, np.uint8))
