import numpy as np
import pytest
from helpers.blocks import KEYS, block_places, images
from hypothesis import given, settings

from ppvit_jax.encryption import ExtendedLearnableEncryption, LearnableEncryption
from ppvit_jax.encryption.learnable import invert_twice
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey


def _nibbles(block):
    values = [int(value) for value in block.reshape(-1)]
    return [value & 15 for value in values] + [value >> 4 for value in values]


def _merged(nibbles, shape):
    half = len(nibbles) // 2
    return np.array([nibbles[i] + 16 * nibbles[half + i] for i in range(half)], np.uint8).reshape(shape)


def _invert(nibbles, flags):
    return [15 - nibble if flag else nibble for nibble, flag in zip(nibbles, flags, strict=True)]


def _scrambled(block, key):
    """Scrambles a block as the public code of LE does, line by line."""
    flags = [place > len(key) / 2 for place in key]
    nibbles = _invert(_nibbles(block), flags)
    nibbles = [nibbles[place] for place in key]
    return _merged(_invert(nibbles, flags), block.shape)


def _restored(block, key):
    flags = [place > len(key) / 2 for place in key]
    nibbles = _invert(_nibbles(block), flags)
    plain = [0] * len(key)
    for place, nibble in zip(key, nibbles, strict=True):
        plain[place] = nibble
    return _merged(_invert(plain, flags), block.shape)


@settings(deadline=None, max_examples=40)
@given(images(), KEYS)
def test_le_is_its_definition(case, key):
    image, size = case
    method = LearnableEncryption(block_size=size)
    secret = method.derive(key, height=image.shape[0], width=image.shape[1])
    nibbles = key.permutation("le/nibbles", size * size * 6).tolist()
    expected = np.empty_like(image)
    for place in block_places(image, size):
        expected[place] = _scrambled(image[place], nibbles)
    encrypted = method.encrypt(image, secret)
    np.testing.assert_array_equal(encrypted, expected)
    for place in block_places(image, size):
        np.testing.assert_array_equal(_restored(encrypted[place], nibbles), image[place])


@settings(deadline=None, max_examples=40)
@given(images(), KEYS)
def test_le_with_an_independent_key_inverts_once_and_then_moves(case, key):
    image, size = case
    method = LearnableEncryption(block_size=size, np_key="independent")
    secret = method.derive(key, height=image.shape[0], width=image.shape[1])
    nibbles, flags = key.permutation("le/nibbles", size * size * 6), key.bits("le/negative", size * size * 6)
    expected = np.empty_like(image)
    for place in block_places(image, size):
        inverted = _invert(_nibbles(image[place]), flags)
        expected[place] = _merged([inverted[source] for source in nibbles], image[place].shape)
    np.testing.assert_array_equal(method.encrypt(image, secret), expected)


@settings(deadline=None, max_examples=40)
@given(images(), KEYS)
def test_ele_scrambles_each_plain_block_by_a_key_of_its_own_and_then_the_blocks(case, key):
    image, size = case
    method = ExtendedLearnableEncryption(block_size=size)
    secret = method.derive(key, height=image.shape[0], width=image.shape[1])
    places = block_places(image, size)
    scrambled = [
        _scrambled(image[place], key.permutation(f"ele/nibbles/{number}", size * size * 6).tolist())
        for number, place in enumerate(places)
    ]
    expected = np.empty_like(image)
    for place, source in zip(places, key.permutation("ele/block", len(places)), strict=True):
        expected[place] = scrambled[source]
    np.testing.assert_array_equal(method.encrypt(image, secret), expected)


def test_le_inverts_47_of_96_nibbles_before_and_after_they_move():
    """On average 47.9 of 96 nibbles then change: the flags xor the permuted flags."""
    changed = []
    for number in range(300):
        key = SecretKey(number.to_bytes(32)).permutation("le/nibbles", 96)
        flags = key > 48
        assert flags.sum() == 47
        np.testing.assert_array_equal(invert_twice(key), flags ^ flags[key])
        secret = LearnableEncryption(block_size=4).derive(SecretKey(number.to_bytes(32)), height=4, width=4)
        assert set(secret["mask"].tolist()) == {0, 15}
        np.testing.assert_array_equal(secret["mask"] == 15, invert_twice(key))
        changed.append((secret["mask"] == 15).sum())
    assert abs(np.mean(changed) - 47.9) < 1


def test_le_treats_all_blocks_alike_and_ele_each_differently():
    image = np.tile(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8), (4, 6, 1))
    for method, count in ((LearnableEncryption(block_size=4), 1), (ExtendedLearnableEncryption(block_size=4), 24)):
        encrypted = method.encrypt(image, method.derive(SecretKey(bytes(32)), height=16, width=24))
        assert len({encrypted[place].tobytes() for place in block_places(image, 4)}) == count


def test_nibbles_cross_values_channels_and_halves():
    """A single nibble of the plain image changes a single nibble of the encrypted one, anywhere in the block."""
    method = LearnableEncryption(block_size=4)
    secret = method.derive(SecretKey(bytes(32)), height=4, width=4)
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    before = np.array(_nibbles(method.encrypt(image, secret)))
    moves = []
    for nibble in range(96):
        changed = np.array(_nibbles(image))
        changed[nibble] ^= 5
        after = _nibbles(method.encrypt(_merged(changed.tolist(), image.shape), secret))
        (place,) = np.flatnonzero(before != after)
        moves.append((nibble, int(place)))
    assert sorted(place for _, place in moves) == list(range(96))
    assert {(source // 48, target // 48) for source, target in moves} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert len({(source % 3, target % 3) for source, target in moves}) == 9


@pytest.mark.parametrize("method", [LearnableEncryption(block_size=4), ExtendedLearnableEncryption(block_size=4)])
def test_no_model_absorbs_nibbles(method):
    with pytest.raises(UserError, match="low and high four bits"):
        method.absorb(SecretKey(bytes(32)), height=8, width=8)
