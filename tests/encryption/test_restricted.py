import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax.encryption import RestrictedPermutations
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

KEYS = st.binary(min_size=32, max_size=32).map(SecretKey)


def _restricted(key, name, length, fixed):
    """Keeps the first `fixed` places of a permutation; permutes the others by the first derangement drawn."""
    staying = set(key.permutation(f"restricted/{name}/{fixed}", length)[:fixed].tolist())
    moving = [place for place in range(length) if place not in staying]
    result, attempt = list(range(length)), 0
    while True:
        order = key.permutation(f"restricted/{name}/{fixed}/{attempt}", len(moving)).tolist()
        for target, source in zip(moving, order, strict=True):
            result[target] = moving[source]
        if all(result[place] != place for place in moving):
            return result
        attempt += 1


@st.composite
def counts(draw):
    """Draws a block size, rows and columns of blocks, and the numbers of blocks and of values in a block that stay."""
    size, rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(1, 5))

    def fixed(length):
        return draw(st.integers(0, length).filter(lambda count: count != length - 1))

    return size, rows, columns, fixed(rows * columns), fixed(size * size * 3)


@settings(deadline=None, max_examples=80)
@given(counts(), KEYS)
def test_so_many_stay_and_every_other_moves(case, key):
    size, rows, columns, fixed_blocks, fixed_pixels = case
    method = RestrictedPermutations(block_size=size, fixed_blocks=fixed_blocks, fixed_pixels=fixed_pixels)
    permutations = method.absorb(key, height=rows * size, width=columns * size)
    for name, permutation, length, fixed in (
        ("block", permutations.block, rows * columns, fixed_blocks),
        ("pixel", permutations.pixel, size * size * 3, fixed_pixels),
    ):
        assert permutation is not None and permutation.dtype == np.int32
        np.testing.assert_array_equal(np.sort(permutation), np.arange(length))
        assert (permutation == np.arange(length)).sum() == fixed
        assert permutation.tolist() == _restricted(key, name, length, fixed)


@settings(deadline=None, max_examples=30)
@given(counts(), KEYS, st.integers(0, 2**32))
def test_blocks_and_their_values_move_as_the_permutations_say(case, key, seed):
    size, rows, columns, fixed_blocks, fixed_pixels = case
    method = RestrictedPermutations(block_size=size, fixed_blocks=fixed_blocks, fixed_pixels=fixed_pixels)
    image = np.random.default_rng(seed).integers(0, 256, (rows * size, columns * size, 3), np.uint8)
    encrypted = method.encrypt(image, method.derive(key, height=rows * size, width=columns * size))
    pixel = _restricted(key, "pixel", size * size * 3, fixed_pixels)
    for target, source in enumerate(_restricted(key, "block", rows * columns, fixed_blocks)):
        into, block = (
            array[number // columns * size :, number % columns * size :][:size, :size].reshape(-1)
            for array, number in ((encrypted, target), (image, source))
        )
        assert into.tolist() == [block[value] for value in pixel]


def test_the_published_part_stays_by_default():
    for seed in range(5):
        permutations = RestrictedPermutations(block_size=16).absorb(
            SecretKey(bytes([seed] * 32)), height=224, width=224
        )
        for permutation, fixed in ((permutations.block, 120), (permutations.pixel, 500)):
            assert permutation is not None
            assert (permutation == np.arange(len(permutation))).sum() == fixed


def test_which_places_stay_differs_from_key_to_key_and_evenly():
    stayed = np.zeros(10)
    for number in range(600):
        method = RestrictedPermutations(block_size=1, fixed_blocks=4, fixed_pixels=0)
        block = method.absorb(SecretKey(number.to_bytes(32)), height=2, width=5).block
        stayed += block == np.arange(10)
    assert stayed.sum() == 2400
    # With 4 of 10 places drawn, a place's count has variance 144; the statistic has 9 degrees of freedom.
    assert ((stayed - 240) ** 2 / 144).sum() * 9 / 10 < 27.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed_blocks": 5}, "of 4 blocks, 5 cannot stay .* set fixed_blocks to 4 or to a number from 0 to 2"),
        ({"fixed_blocks": 3}, "of 4 blocks, 3 cannot stay"),
        ({"fixed_blocks": -2}, "of 4 blocks, -2 cannot stay"),
        ({"fixed_pixels": 49}, "of 48 values, 49 cannot stay .* set fixed_pixels to 48 or to a number from 0 to 46"),
        ({"fixed_pixels": 47}, "of 48 values, 47 cannot stay"),
    ],
)
def test_counts_that_cannot_be_are_named(options, message):
    with pytest.raises(UserError, match=message):
        RestrictedPermutations(block_size=4, **options).derive(SecretKey(bytes(32)), height=8, width=8)


def test_all_may_stay():
    method = RestrictedPermutations(block_size=4, fixed_blocks=4, fixed_pixels=48)
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    encrypted = method.encrypt(image, method.derive(SecretKey(bytes(32)), height=8, width=8))
    np.testing.assert_array_equal(encrypted, image)
