import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from ppvit_jax.audit.solvers.nibbles import solve
from ppvit_jax.encryption import LearnableEncryption
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

SIDE = 128
CORNERS = [(0, 0), (120, 200), (200, 60), (60, 400)]


def crops():
    photos = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    return np.stack([photo[y : y + SIDE, x : x + SIDE] for photo in photos for y, x in CORNERS])


def luma_correlation(images, guessed):
    """Returns the absolute correlation of brightness, which ignores inversion."""
    return abs(np.corrcoef(images.mean(-1).ravel(), guessed.mean(-1).ravel())[0, 1])


@pytest.mark.slow
@pytest.mark.parametrize(("np_key", "number"), [("shared", 0), ("shared", 1), ("independent", 2)])
def test_the_picture_is_found(np_key, number):
    method, images = LearnableEncryption(block_size=4, np_key=np_key), crops()
    encrypted = method.encrypt(images, method.derive(SecretKey(bytes([number] * 32)), height=SIDE, width=SIDE))
    assert luma_correlation(images, encrypted) < 0.5
    secret = solve(method, encrypted)
    assert secret["index"].dtype == np.int32 and set(np.unique(secret["mask"])) <= {0, 15}
    decrypted = method.decrypt(encrypted, secret)
    assert luma_correlation(images, decrypted) > 0.99
    np.testing.assert_array_equal(method.encrypt(decrypted, secret), encrypted)


@pytest.mark.slow
def test_high_nibbles_are_where_the_key_put_them():
    method, images = LearnableEncryption(block_size=4), crops()
    truth = method.derive(SecretKey(bytes([8] * 32)), height=SIDE, width=SIDE)
    secret = solve(method, method.encrypt(images, truth))
    values = 4 * 4 * 3
    found, key = (method.undo(each)["index"][values : 2 * values].reshape(-1, 3) for each in (secret, truth))
    # Each pixel of a block has the same three nibbles, in any channel order.
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(key, axis=1))


def test_flat_images_give_some_secret():
    secret = solve(LearnableEncryption(block_size=4), np.full((1, 8, 8, 3), 77, np.uint8))
    assert sorted(secret["index"].tolist()) == list(range(8 * 8 * 6))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((8, 8, 3), "images, height, width, 3"), ((1, 4, 8, 3), "too few blocks"), ((1, 10, 8, 3), "does not divide")],
)
def test_mistakes_are_refused(shape, message):
    with pytest.raises(UserError, match=message):
        solve(LearnableEncryption(block_size=4), np.zeros(shape, np.uint8))
