import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax.encryption import PixelPositionShuffling
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

KEYS = st.binary(min_size=32, max_size=32).map(SecretKey)
OPTIONS = [(sub_block, shared) for sub_block in ("half", "whole") for shared in ("all", "blocks", "none")]


def _places(height, width, size):
    return [
        np.s_[row : row + size, column : column + size]
        for row in range(0, height, size)
        for column in range(0, width, size)
    ]


def _loop(image, method, key):
    size = method.block_size
    side = size // 2 if method.sub_block == "half" else size
    places, inner = _places(image.shape[0], image.shape[1], size), _places(size, size, side)
    block_order = key.permutation("bs+pps/block", len(places))
    result = np.empty_like(image)
    for number, place in enumerate(places):
        block = image[places[block_order[number]]]
        for sub, target in enumerate(inner):
            label = {"all": "0", "blocks": str(sub), "none": f"{number}/{sub}"}[method.shared]
            order = key.permutation(f"bs+pps/position/{label}", side * side)
            pixels = [block[target][position // side, position % side] for position in order]
            for position, pixel in enumerate(pixels):
                result[place][target][position // side, position % side] = pixel
    return result


@settings(deadline=None, max_examples=60)
@given(
    options=st.sampled_from(OPTIONS),
    half=st.integers(1, 3),
    rows=st.integers(1, 3),
    columns=st.integers(1, 4),
    seed=st.integers(0, 2**32),
    key=KEYS,
)
def test_bs_pps_is_its_definition(options, half, rows, columns, seed, key):
    sub_block, shared = options
    size = 2 * half if sub_block == "half" else half
    method = PixelPositionShuffling(block_size=size, sub_block=sub_block, shared=shared)
    image = np.random.default_rng(seed).integers(0, 256, (rows * size, columns * size, 3), np.uint8)
    secret = method.derive(key, height=rows * size, width=columns * size)
    np.testing.assert_array_equal(method.encrypt(image, secret), _loop(image, method, key))


@pytest.mark.parametrize(("sub_block", "shared"), OPTIONS)
def test_pixels_keep_their_colors_and_their_sub_blocks(sub_block, shared):
    method = PixelPositionShuffling(block_size=8, sub_block=sub_block, shared=shared)
    # A pixel's three channels hold its block, its place in the block, and the sum of the two.
    block, place = np.divmod(np.arange(24 * 64), 64)
    blocks = np.stack([block, place, block + place], axis=-1).reshape(4, 6, 8, 8, 3).astype(np.uint8)
    image = blocks.swapaxes(1, 2).reshape(32, 48, 3)
    encrypted = method.encrypt(image, method.derive(SecretKey(bytes(32)), height=32, width=48))
    np.testing.assert_array_equal(encrypted[..., 0] + encrypted[..., 1], encrypted[..., 2])
    side = 4 if sub_block == "half" else 8
    orders = set()
    for target in _places(32, 48, 8):
        assert len(np.unique(encrypted[target][..., 0])) == 1
        orders.add(encrypted[target][..., 1].tobytes())
        for inner in _places(8, 8, side):
            before = np.arange(64).reshape(8, 8)[inner]
            after = encrypted[target][..., 1][inner]
            assert sorted(after.reshape(-1).tolist()) == sorted(before.reshape(-1).tolist())
            assert (after != before).any()
    assert len(orders) == (24 if shared == "none" else 1)
    sources = [int(encrypted[target][0, 0, 0]) for target in _places(32, 48, 8)]
    assert sorted(sources) == list(range(24)) and sources != list(range(24))


@pytest.mark.parametrize(("shared", "count"), [("all", 1), ("blocks", 4)])
def test_sub_blocks_share_a_permutation_or_have_one_each(shared, count):
    method = PixelPositionShuffling(block_size=8, shared=shared)
    pixel = method.absorb(SecretKey(bytes(32)), height=16, width=16).pixel
    assert pixel is not None and pixel.shape == (192,)
    positions = (pixel // 3).reshape(8, 8, 3)[..., 0]
    orders = set()
    for inner in _places(8, 8, 4):
        rows, columns = np.divmod(positions[inner], 8)
        orders.add((rows % 4 * 4 + columns % 4).tobytes())
    assert len(orders) == count


def test_what_cannot_be_is_named():
    with pytest.raises(UserError, match=r"blocks of 7 cannot be halved: use bs\+pps:sub_block=whole"):
        PixelPositionShuffling(block_size=7)
    assert PixelPositionShuffling(block_size=7, sub_block="whole").block_size == 7
    with pytest.raises(UserError, match=r"bs\+pps:shared=none: .* differs from block to block"):
        PixelPositionShuffling(block_size=8, shared="none").absorb(SecretKey(bytes(32)), height=16, width=16)
