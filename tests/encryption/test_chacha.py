import jax
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax.encryption import chacha

NUMBERS = np.array([0, 1, 2, 255, 256, 2**31, 2**32 - 1], np.uint32)


def _words(key):
    return np.frombuffer(key, "<u4").astype(np.uint32)


def _keystream(key, number, count):
    """Computes the keystream with the library `cryptography`.

    Its nonce is the block counter (4 bytes) followed by the nonce of RFC 8439 (12 bytes).
    """
    nonce = bytes(4) + int(number).to_bytes(4, "little") + bytes(8)
    return _words(Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(bytes(4 * count)))


@settings(deadline=None, max_examples=30)
@given(
    key=st.binary(min_size=32, max_size=32),
    numbers=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4),
    count=st.integers(0, 70),
)
def test_the_keystream_is_that_of_another_library(key, numbers, count):
    stream = chacha.stream(_words(key), np.array(numbers, np.uint32), count)
    assert (stream.dtype, stream.shape) == (np.uint32, (len(numbers), count))
    for words, number in zip(stream, numbers, strict=True):
        np.testing.assert_array_equal(words, _keystream(key, number, count))


@pytest.mark.parametrize(
    ("key", "counter", "keystream"),
    [
        (
            bytes(32),
            0,
            "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
            "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
        ),
        (
            bytes(32),
            1,
            "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
            "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
        ),
        (
            bytes(31) + b"\1",
            1,
            "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
            "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0",
        ),
    ],
)
def test_known_answers_of_rfc_8439(key, counter, keystream):
    """Checks vectors 1 to 3 of appendix A.1, whose nonce is zero."""
    stream = chacha.stream(_words(key), np.array(0, np.uint32), 16 * (counter + 1))
    assert stream[16 * counter :].astype("<u4").tobytes().hex() == keystream


def test_compiled_words_and_orders_are_those_of_numpy():
    key, numbers = _words(bytes(range(32))), NUMBERS[:6].reshape(2, 3)

    @jax.jit
    def compiled(key, numbers):
        return chacha.stream(key, numbers, 33), chacha.permutations(key, numbers, 33)

    words, orders = compiled(key, numbers)
    assert (words.dtype, words.shape, orders.dtype, orders.shape) == (np.uint32, (2, 3, 33), np.int32, (2, 3, 33))
    np.testing.assert_array_equal(words, chacha.stream(key, numbers, 33))
    np.testing.assert_array_equal(orders, chacha.permutations(key, numbers, 33))


def test_a_shorter_stream_is_the_beginning_of_a_longer_one():
    key = _words(bytes(range(32)))
    long = chacha.stream(key, NUMBERS, 100)
    for count in (1, 16, 17, 64):
        np.testing.assert_array_equal(chacha.stream(key, NUMBERS, count), long[:, :count])


def test_each_number_has_an_order_of_its_own():
    key = bytes(range(32))
    orders = chacha.permutations(_words(key), NUMBERS, 196)
    assert (orders.dtype, orders.shape) == (np.int32, (len(NUMBERS), 196))
    np.testing.assert_array_equal(np.sort(orders, axis=-1), np.tile(np.arange(196), (len(NUMBERS), 1)))
    assert len({order.tobytes() for order in orders}) == len(NUMBERS)
    assert (chacha.permutations(_words(bytes(32)), NUMBERS, 196) != orders).any(axis=-1).all()
    for order, number in zip(orders, NUMBERS, strict=True):
        words = _keystream(key, number, 196).tolist()
        assert order.tolist() == sorted(range(196), key=lambda place: (words[place], place))


def test_equal_words_keep_their_order(monkeypatch):
    words = np.array([[5, 2, 5, 2, 2**32 - 1, 0, 5, 2]], np.uint32)
    monkeypatch.setattr(chacha, "stream", lambda key, numbers, count: words)
    assert chacha.permutations(words, words, 8).tolist() == [[5, 1, 3, 7, 0, 2, 6, 4]]


def test_every_order_of_three_is_equally_frequent():
    orders = chacha.permutations(_words(bytes(range(32))), np.arange(6000, dtype=np.uint32), 3)
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert ((counts - 1000) ** 2 / 1000).sum() < 20.5  # the 99.9% quantile for 5 degrees of freedom
