import collections
import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax.encryption import EncryptionThenCompression, parse
from ppvit_jax.encryption.permutations import split_blocks
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

KEYS = st.binary(min_size=32, max_size=32).map(SecretKey)
# RGB, RBG, GRB, GBR, BRG, BGR
ORDERS = list(itertools.permutations(range(3)))


@st.composite
def cases(draw):
    """Draws a method and an image for it."""
    sub_block, parts = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    size = sub_block * parts
    method = EncryptionThenCompression(
        block_size=size,
        sub_block_size=sub_block if parts > 1 else draw(st.sampled_from([0, size])),
        shared=draw(st.booleans()),
        rotation=draw(st.booleans()),
        negative_positive=draw(st.booleans()),
        channels=draw(st.sampled_from(["permuted", "published", "in_place", "none"])),
    )
    shape = size * draw(st.integers(1, 3)), size * draw(st.integers(1, 4)), 3
    return method, np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, 256, shape, np.uint8)


def _places(height, width, size):
    return [
        np.s_[row : row + size, column : column + size]
        for row in range(0, height, size)
        for column in range(0, width, size)
    ]


def _assign(block, code):
    """Assigns the channels one after another in place, as Madono's code does, and so reads overwritten ones."""
    block = block.copy()
    for target, source in enumerate(ORDERS[code]):
        block[..., target] = block[..., source]
    return block


def _loop(image, method, key):
    """Permutes blocks, then sub-blocks in each block; rotates and flips, inverts, and permutes channels."""
    size = method.block_size
    places = _places(image.shape[0], image.shape[1], size)
    side = method.sub_block_size or size
    inner = _places(size, size, side)
    keyed = 1 if method.shared else len(places)
    published = method.channels == "published"
    symmetries = key.integers("etc/rotation", keyed * len(inner), 8)
    quarters, flips = (key.integers(f"etc/{name}", keyed * len(inner), n) for name, n in (("quarters", 4), ("flip", 3)))
    negative = key.bits("etc/negative", keyed * len(inner))
    if published:
        # The first half of the numbers 0, 1, ... marks an inverted sub-block.
        negative = [number < keyed * len(inner) // 2 for number in key.permutation("etc/half", keyed * len(inner))]
    codes = key.integers("etc/channels", keyed * len(inner), 6)
    order = key.permutation("etc/block", len(places))
    result = np.empty_like(image)
    for number, place in enumerate(places):
        own = 0 if method.shared else number
        block = image[places[order[number]]]
        sub_order = key.permutation(f"etc/sub-block/{own}", len(inner)) if len(inner) > 1 else [0]
        for sub, target in enumerate(inner):
            code = own * len(inner) + sub
            part = block[inner[sub_order[sub]]]
            if method.rotation and published:
                part = np.rot90(part, quarters[code])
                part = {0: part, 1: np.flipud(part), 2: np.fliplr(part)}[flips[code]]
            elif method.rotation:
                part = np.rot90(part, symmetries[code] % 4)
                part = np.fliplr(part) if symmetries[code] >= 4 else part
            if method.negative_positive and negative[code]:
                part = 255 - part
            if method.channels == "permuted":
                part = np.stack([part[..., channel] for channel in ORDERS[codes[code]]], axis=-1)
            elif method.channels in ("published", "in_place"):
                part = _assign(part, codes[code])
            result[place][target] = part
    return result


@settings(deadline=None, max_examples=150)
@given(cases(), KEYS)
def test_etc_is_its_definition(case, key):
    method, image = case
    secret = method.derive(key, height=image.shape[0], width=image.shape[1])
    np.testing.assert_array_equal(method.encrypt(image, secret), _loop(image, method, key))


@pytest.mark.parametrize("sub_block_size", [0, 8, 4])
def test_etc_at_real_size_is_its_definition(sub_block_size):
    method, key = EncryptionThenCompression(block_size=16, sub_block_size=sub_block_size), SecretKey(bytes(32))
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    secret = method.derive(key, height=224, width=224)
    np.testing.assert_array_equal(method.encrypt(image, secret), _loop(image, method, key))


def _blocks(method, pattern, seed=0):
    """Encrypts 1536 identical blocks: returns uint8 [1536, size, size, 3]."""
    size = method.block_size
    image = np.tile(pattern, (32, 48, 1))
    secret = method.derive(SecretKey(bytes([seed] * 32)), height=32 * size, width=48 * size)
    encrypted = method.encrypt(image, secret)
    return np.stack([encrypted[place] for place in _places(image.shape[0], image.shape[1], size)])


def test_rotations_and_flips_are_uniform_over_the_symmetries_of_a_square():
    method = EncryptionThenCompression(block_size=2, negative_positive=False, channels="none")
    pattern = np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, axis=2)
    symmetries = [np.rot90(side, turns) for side in (pattern, pattern.transpose(1, 0, 2)) for turns in range(4)]
    distinct, counts = np.unique(_blocks(method, pattern), axis=0, return_counts=True)
    assert {block.tobytes() for block in distinct} == {block.tobytes() for block in symmetries}
    assert len(counts) == 8
    assert ((counts - 192) ** 2 / 192).sum() < 24.3  # the 99.9% quantile for 7 degrees of freedom


def test_channel_orders_are_uniform_and_half_of_the_blocks_are_inverted_as_a_whole():
    method = EncryptionThenCompression(block_size=2, rotation=False)
    pattern = np.tile(np.array([10, 20, 30], np.uint8), (2, 2, 1))
    blocks = _blocks(method, pattern)
    assert (blocks == blocks[:, :1, :1]).all()
    colors = blocks[:, 0, 0].astype(int)
    inverted = (colors > 100).all(axis=1)
    assert (inverted | (colors < 100).all(axis=1)).all()
    assert abs(inverted.sum() - 768) < 65  # 3.3 standard deviations
    colors[inverted] = 255 - colors[inverted]
    distinct, counts = np.unique(colors // 10 - 1, axis=0, return_counts=True)
    assert sorted(map(tuple, distinct.tolist())) == ORDERS
    assert ((counts - 256) ** 2 / 256).sum() < 20.5  # the 99.9% quantile for 5 degrees of freedom


def test_published_channels_draw_turns_as_the_public_code_does():
    """Compares frequencies with those over all codes of Madono's code: quarter turns 0 to 3, then one of two flips."""
    pattern = np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, axis=2)
    expected = collections.Counter(
        flip(np.rot90(pattern, quarters)).tobytes()
        for quarters in range(4)
        for flip in (np.flipud, np.fliplr, lambda block: block)
    )
    assert sorted(expected.values()) == [1] * 4 + [2] * 4
    method = EncryptionThenCompression(block_size=2, negative_positive=False, channels="published")
    counts = collections.Counter(block.tobytes() for block in _blocks(method, pattern))
    assert set(counts) == set(expected)
    statistic = sum((counts[block] - 128 * times) ** 2 / (128 * times) for block, times in expected.items())
    assert statistic < 24.3  # the 99.9% quantile for 7 degrees of freedom
    # Two thirds of the blocks are reflected; "in_place" reflects half of them.
    in_place = collections.Counter(
        block.tobytes() for block in _blocks(dataclasses.replace(method, channels="in_place"), pattern)
    )
    shares = [sum(drawn[block] for block in expected if expected[block] == 2) / 1536 for drawn in (counts, in_place)]
    np.testing.assert_allclose(shares, [2 / 3, 1 / 2], atol=0.045)  # 3.5 standard deviations


@pytest.mark.parametrize(("rows", "columns", "inverted"), [(8, 8, 32), (3, 5, 7), (1, 1, 0)])
def test_published_channels_invert_exactly_half_of_the_blocks_rounded_down(rows, columns, inverted):
    method = EncryptionThenCompression(block_size=4, channels="published")
    image = np.full((4 * rows, 4 * columns, 3), 9, np.uint8)
    chosen = []
    for seed in range(5):
        secret = method.derive(SecretKey(bytes([seed] * 32)), height=4 * rows, width=4 * columns)
        blocks = split_blocks(method.encrypt(image, secret), 4)
        assert np.isin(blocks, (9, 246)).all() and (blocks == blocks[:, :1]).all()
        assert (blocks[:, 0] == 246).sum() == inverted
        chosen.append(blocks[:, 0].tolist())
    assert len({tuple(each) for each in chosen}) == (1 if inverted == 0 else 5)


def test_published_channels_are_those_of_the_in_place_assignments_of_the_public_code():
    """Swaps red and green, red and blue, green and blue, or rotates the channels, as the code does: without a copy."""
    assignments = [[], [(0, 1), (1, 0)], [(0, 2), (2, 0)], [(1, 2), (2, 1)], [(0, 2), (1, 0), (2, 1)]]
    assignments.append([(0, 1), (1, 2), (2, 0)])
    results = []
    for steps in assignments:
        pixel = [10, 20, 30]
        for target, source in steps:
            pixel[target] = pixel[source]
        results.append(tuple(pixel))
    method = EncryptionThenCompression(block_size=2, rotation=False, negative_positive=False, channels="published")
    blocks = _blocks(method, np.tile(np.array([10, 20, 30], np.uint8), (2, 2, 1)))
    counts = collections.Counter(tuple(block[0, 0].tolist()) for block in blocks)
    assert set(counts) == set(results) and len(counts) == 6
    assert sum((count - 256) ** 2 / 256 for count in counts.values()) < 20.5


def test_legacy_names_the_published_draw_and_is_recorded_apart_from_the_former_one():
    """Images that say "legacy" are of a former version, whose draw is "in_place" (docs/key_format.md)."""
    key, image = SecretKey(bytes(32)), np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    encrypted = {}
    for channels in ("published", "legacy", "in_place"):
        method = parse(f"etc:channels={channels}", 8)
        assert method.spec == f"etc:channels={'published' if channels == 'legacy' else channels}"
        encrypted[channels] = method.encrypt(image, method.derive(key, height=32, width=32))
    np.testing.assert_array_equal(encrypted["legacy"], encrypted["published"])
    assert (encrypted["published"] != encrypted["in_place"]).mean() > 0.5


@pytest.mark.parametrize("channels", ["published", "in_place"])
def test_channels_assigned_in_place_lose_a_channel_for_five_of_six_codes(channels):
    method = EncryptionThenCompression(block_size=2, rotation=False, negative_positive=False, channels=channels)
    pattern = np.tile(np.array([1, 2, 3], np.uint8), (2, 2, 1))
    codes = SecretKey(bytes(32)).integers("etc/channels", 32 * 48, 6)
    colors = _blocks(method, pattern)[:, 0, 0]
    colors_by_code = {int(code): {tuple(color) for color in colors[codes == code].tolist()} for code in range(6)}
    assert all(len(values) == 1 for values in colors_by_code.values())
    by_code = [values.pop() for _, values in sorted(colors_by_code.items())]
    assert by_code[0] == (1, 2, 3) and by_code[4] == (3, 3, 3)
    assert [len(set(color)) < 3 for color in by_code] == [False, True, True, True, True, True]
    assert [_assign(pattern, code)[0, 0].tolist() for code in range(6)] == [list(color) for color in by_code]
    with pytest.raises(UserError, match=rf"etc:.*channels={channels} cannot be undone: .* destroy information"):
        method.undo(method.derive(SecretKey(bytes(32)), height=4, width=4))
    with pytest.raises(UserError, match=rf"cannot be adapted to etc:.*channels={channels}"):
        EncryptionThenCompression(block_size=2, shared=True, channels=channels).absorb(
            SecretKey(bytes(32)), height=4, width=4
        )


def test_keys_for_each_block_cannot_be_absorbed_and_shared_ones_can():
    key = SecretKey(bytes(32))
    for sub_block_size in (0, 4):
        method = EncryptionThenCompression(block_size=8, sub_block_size=sub_block_size)
        with pytest.raises(UserError, match="differs from block to block"):
            method.absorb(key, height=16, width=16)
        shared = EncryptionThenCompression(block_size=8, sub_block_size=sub_block_size, shared=True)
        permutations = shared.absorb(key, height=16, width=16)
        assert permutations.alike
        assert permutations.pixel is not None and permutations.negative is not None
        assert (permutations.pixel.shape, permutations.negative.shape) == ((192,), (192,))


def test_nothing_moves_inside_a_block_where_all_is_off():
    method = EncryptionThenCompression(block_size=8, rotation=False, negative_positive=False, channels="none")
    permutations = method.absorb(SecretKey(bytes(32)), height=32, width=32)
    assert permutations.pixel is None and permutations.negative is None and permutations.block is not None
