import itertools

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ppvit_jax.encryption import PixelEncryption
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

KEYS = st.binary(min_size=32, max_size=32).map(SecretKey)
SIZES = st.integers(1, 9)
# RGB, RBG, GRB, GBR, BRG, BGR
ORDERS = list(itertools.permutations(range(3)))


def _image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _loop(image, bits, codes):
    """Encrypts pixel by pixel: inverts the marked channels, then puts the channels into the order of the code."""
    bits, codes = iter(bits), iter(codes)
    result = np.empty_like(image)
    for row, column in itertools.product(range(image.shape[0]), range(image.shape[1])):
        pixel = [255 - int(value) if next(bits) else value for value in image[row, column]]
        result[row, column] = [pixel[channel] for channel in ORDERS[next(codes)]]
    return result


@settings(deadline=None, max_examples=40)
@given(height=SIZES, width=SIZES, seed=st.integers(0, 2**32), key=KEYS, colour=st.booleans())
def test_pe_is_its_definition(height, width, seed, key, colour):
    method, image = PixelEncryption(block_size=4, colour=colour), _image(height, width, seed)
    codes = key.integers("pe/channels", height * width, 6) if colour else itertools.repeat(0)
    expected = _loop(image, key.bits("pe/negative", height * width * 3), codes)
    encrypted = method.encrypt(image, method.derive(key, height=height, width=width))
    np.testing.assert_array_equal(encrypted, expected)


@settings(deadline=None, max_examples=40)
@given(
    height=SIZES,
    width=SIZES,
    seed=st.integers(0, 2**32),
    key=KEYS,
    number=st.integers(0, 2**32 - 1),
    colour=st.booleans(),
)
# The bits of 8x8 pixels exactly fill whole words.
@example(height=8, width=8, seed=0, key=SecretKey(bytes(32)), number=0, colour=True)
def test_pe_with_a_key_for_every_image_is_its_definition(height, width, seed, key, number, colour):
    """Takes the bits and codes from ChaCha20 of the library `cryptography`."""
    method, image = PixelEncryption(block_size=4, keys="per_image", colour=colour), _image(height, width, seed)
    in_words = -(-height * width * 3 // 32)
    nonce = bytes(4) + number.to_bytes(4, "little") + bytes(8)
    cipher = Cipher(ChaCha20(key.words("pe/images", 8).astype("<u4").tobytes(), nonce), mode=None)
    words = np.frombuffer(cipher.encryptor().update(bytes(4 * (in_words + height * width))), "<u4").tolist()
    bits = [words[value // 32] >> value % 32 & 1 for value in range(height * width * 3)]
    codes = [word % 6 for word in words[in_words:]] if colour else itertools.repeat(0)
    secret = method.derive(key, height=height, width=width)
    encrypted = method.encrypt(image, secret, np.uint32(number))
    np.testing.assert_array_equal(encrypted, _loop(image, bits, codes))
    np.testing.assert_array_equal(method.decrypt(encrypted, secret, np.uint32(number)), image)


@pytest.mark.parametrize("keys", ["shared", "per_image"])
def test_each_channel_is_inverted_by_itself_and_the_orders_are_uniform(keys):
    method = PixelEncryption(block_size=4, keys=keys)
    image = np.tile(np.array([10, 20, 30], np.uint8), (64, 96, 1))
    encrypted = method.encrypt(image, method.derive(SecretKey(bytes(32)), height=64, width=96), np.uint32(0))
    values = encrypted.reshape(-1, 3).astype(int)
    inverted = values > 100
    orders = np.where(inverted, 255 - values, values) // 10 - 1
    distinct, counts = np.unique(orders, axis=0, return_counts=True)
    assert sorted(map(tuple, distinct.tolist())) == ORDERS
    assert ((counts - 1024) ** 2 / 1024).sum() < 20.5  # the 99.9% quantile for 5 degrees of freedom
    # Sorted by channel of the plain image.
    bits = np.take_along_axis(inverted, orders.argsort(axis=1), axis=1)
    patterns = np.unique(bits, axis=0, return_counts=True)[1]
    assert len(patterns) == 8
    assert ((patterns - 768) ** 2 / 768).sum() < 24.3  # the 99.9% quantile for 7 degrees of freedom


def test_images_share_a_key_or_have_one_each():
    images, numbers = np.repeat(_image(8, 8)[None], 4, axis=0), np.array([0, 1, 2**32 - 1, 0], np.uint32)
    for keys, count in (("shared", 1), ("per_image", 3)):
        method = PixelEncryption(block_size=4, keys=keys)
        assert method.per_image == (keys == "per_image")
        encrypted = method.encrypt(images, method.derive(SecretKey(bytes(32)), height=8, width=8), numbers)
        assert len({image.tobytes() for image in encrypted}) == count
        np.testing.assert_array_equal(encrypted[0], encrypted[3])


def test_without_color_no_value_leaves_its_place():
    for keys in ("shared", "per_image"):
        method, image = PixelEncryption(block_size=4, keys=keys, colour=False), _image(16, 16)
        encrypted = method.encrypt(image, method.derive(SecretKey(bytes(32)), height=16, width=16), np.uint32(3))
        inverted = encrypted == 255 - image
        assert (inverted | (encrypted == image)).all()
        assert 300 < inverted.sum() < 468


def test_blocks_have_no_part_in_it():
    image = _image(6, 10)
    encrypted, again = (
        method.encrypt(image, method.derive(SecretKey(bytes(32)), height=6, width=10))
        for method in (PixelEncryption(block_size=4), PixelEncryption(block_size=7))
    )
    np.testing.assert_array_equal(encrypted, again)


def test_what_cannot_be_is_named():
    method = PixelEncryption(block_size=4, keys="per_image")
    secret = method.derive(SecretKey(bytes(32)), height=8, width=8)
    for change in (method.encrypt, method.decrypt):
        with pytest.raises(UserError, match="pe:keys=per_image has a key for every image: give the images' numbers"):
            change(_image(8, 8), secret)
        with pytest.raises(UserError, match="values of float32 cannot be inverted: give uint8 images"):
            change(_image(8, 8).astype(np.float32), secret, np.uint32(0))
    with pytest.raises(UserError, match="follows from the image's number: decrypt in Python"):
        method.undo(secret)
    for keys in ("shared", "per_image"):
        with pytest.raises(UserError, match="every pixel of an image has a key of its own"):
            PixelEncryption(block_size=4, keys=keys).absorb(SecretKey(bytes(32)), height=8, width=8)
