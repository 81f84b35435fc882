import numpy as np
import pytest
from helpers.blocks import KEYS, block_places, images
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax.encryption import BlockPixelNegativePositive, NegativePositive
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey


def _inverted(values, mask):
    """Inverts a value if its drawn number is above the middle, as the public code does."""
    return [255 - int(value) if drawn > len(mask) / 2 else value for value, drawn in zip(values, mask, strict=True)]


@settings(deadline=None, max_examples=40)
@given(images(), KEYS)
def test_np_is_its_definition(case, key):
    image, size = case
    method = NegativePositive(block_size=size)
    mask = key.permutation("np/mask", size * size * 3)
    expected = np.empty_like(image)
    for place in block_places(image, size):
        expected[place] = np.array(_inverted(image[place].reshape(-1), mask)).reshape(size, size, 3)
    secret = method.derive(key, height=image.shape[0], width=image.shape[1])
    encrypted = method.encrypt(image, secret)
    np.testing.assert_array_equal(encrypted, expected)
    np.testing.assert_array_equal(method.encrypt(encrypted, secret), image)


@settings(deadline=None, max_examples=40)
@given(images(), KEYS, st.booleans())
def test_bs_ps_np_scrambles_blocks_and_moves_and_inverts_the_values_of_each(case, key, shared):
    image, size = case
    method = BlockPixelNegativePositive(block_size=size, shared=shared)
    places, values = block_places(image, size), size * size * 3
    blocks = [image[place].reshape(-1) for place in places]
    scrambled = [blocks[source] for source in key.permutation("bs+ps+np/block", len(places))]
    expected = np.empty_like(image)
    for number, (place, block) in enumerate(zip(places, scrambled, strict=True)):
        own = "" if shared else f"/{number}"
        moved = [block[source] for source in key.permutation(f"bs+ps+np/pixel{own}", values)]
        inverted = _inverted(moved, key.permutation(f"bs+ps+np/mask{own}", values))
        expected[place] = np.array(inverted).reshape(size, size, 3)
    secret = method.derive(key, height=image.shape[0], width=image.shape[1])
    np.testing.assert_array_equal(method.encrypt(image, secret), expected)


@pytest.mark.parametrize(("size", "values"), [(4, 48), (16, 768), (1, 3), (3, 27)])
@pytest.mark.parametrize("method", [NegativePositive, BlockPixelNegativePositive])
def test_the_values_above_the_middle_are_inverted(method, size, values):
    """n / 2 - 1 of n values are inverted if n is even: public code compares `permutation > n / 2`, counted from 0."""
    negative = method(block_size=size).absorb(SecretKey(bytes(32)), height=2 * size, width=size).negative
    assert negative.shape == (values,) and negative.dtype == bool
    assert negative.sum() == (values // 2 - 1 if values % 2 == 0 else values // 2)


def test_inverting_is_a_change_of_sign_of_normalized_images():
    method = NegativePositive(block_size=4)
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    secret = method.derive(SecretKey(bytes(32)), height=4, width=4)
    plain, encrypted = (x.reshape(-1) / 127.5 - 1 for x in (image, method.encrypt(image, secret)))
    negative = method.absorb(SecretKey(bytes(32)), height=4, width=4).negative
    assert negative is not None
    np.testing.assert_allclose(encrypted, plain * np.where(negative, -1, 1), rtol=0, atol=1e-15)


def test_keys_for_each_block_cannot_be_absorbed():
    method = BlockPixelNegativePositive(block_size=4, shared=False)
    with pytest.raises(UserError, match=r"bs\+ps\+np:shared=False: .* differs from block to block"):
        method.absorb(SecretKey(bytes(32)), height=8, width=8)
    image = np.tile(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8), (4, 6, 1))
    for shared, count in ((True, 1), (False, 24)):
        method = BlockPixelNegativePositive(block_size=4, shared=shared)
        encrypted = method.encrypt(image, method.derive(SecretKey(bytes(32)), height=16, width=24))
        assert len({encrypted[place].tobytes() for place in block_places(image, 4)}) == count
