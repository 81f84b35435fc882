import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_image

from ppvit_jax.audit.solvers.jigsaw import assemble, assembly_cost
from ppvit_jax.encryption.permutations import split_blocks
from ppvit_jax.errors import UserError

ROWS, COLUMNS, SIDE = 7, 9, 16


def blocks_of(photos=("china.jpg", "flower.jpg"), corner=(120, 200)):
    """Returns the blocks of a crop of each photograph, in their places: uint8 [images, blocks, side, side, 3]."""
    crop = np.s_[corner[0] : corner[0] + ROWS * SIDE, corner[1] : corner[1] + COLUMNS * SIDE]
    images = np.stack([load_sample_image(photo)[crop] for photo in photos])
    return split_blocks(images, SIDE).reshape(len(images), ROWS * COLUMNS, SIDE, SIDE, 3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("photos", [("flower.jpg",), ("china.jpg", "flower.jpg")])
def test_scrambled_blocks_return_to_their_places(seed, photos):
    blocks = blocks_of(photos)
    scrambled = blocks[:, np.random.default_rng(seed).permutation(ROWS * COLUMNS)]
    order = assemble(scrambled, ROWS, COLUMNS)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(scrambled[:, order], blocks)


def test_order_of_channels_and_inversion_are_harmless():
    blocks = blocks_of()
    scrambled = 255 - blocks[:, np.random.default_rng(7).permutation(ROWS * COLUMNS)][..., [2, 0, 1]]
    np.testing.assert_array_equal(255 - scrambled[:, assemble(scrambled, ROWS, COLUMNS)], blocks[..., [2, 0, 1]])


def test_floating_point_blocks_give_the_same_order():
    blocks = blocks_of()
    scrambled = blocks[:, np.random.default_rng(8).permutation(ROWS * COLUMNS)]
    np.testing.assert_array_equal(
        assemble(scrambled.astype(np.float64), ROWS, COLUMNS), assemble(scrambled, ROWS, COLUMNS)
    )


def test_flat_borders_do_not_misplace_other_blocks():
    image = load_sample_image("flower.jpg")[120 : 120 + ROWS * SIDE, 200 : 200 + COLUMNS * SIDE].copy()
    image[: 2 * SIDE], image[:, -SIDE:] = 255, 255
    blocks = split_blocks(image, SIDE).reshape(1, ROWS * COLUMNS, SIDE, SIDE, 3)
    scrambled = blocks[:, np.random.default_rng(1).permutation(ROWS * COLUMNS)]
    placed = scrambled[:, assemble(scrambled, ROWS, COLUMNS)].reshape(ROWS, COLUMNS, -1)
    # The white frame does not determine the position of the picture.
    shifts = [np.roll(placed, (down, right), (0, 1)) for down in range(-2, 3) for right in range(-1, 2)]
    assert any((shift == blocks.reshape(ROWS, COLUMNS, -1)).all() for shift in shifts)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(2, 4), st.sampled_from(["noise", "flat"]))
@settings(deadline=None, max_examples=25)
def test_any_blocks_give_a_permutation(rows, columns, count, side, content):
    blocks = np.random.default_rng(0).integers(0, 256, (count, rows * columns, side, side, 3), np.uint8)
    blocks = blocks if content == "noise" else np.full_like(blocks, 9)
    order = assemble(blocks, rows, columns)
    assert sorted(order.tolist()) == list(range(rows * columns))
    np.testing.assert_array_equal(order, assemble(blocks, rows, columns))


def test_cost_is_the_difference_of_pixels_across_borders():
    blocks = np.random.default_rng(0).integers(0, 256, (2, 6, 3, 3, 3), np.uint8)
    order = np.array([3, 1, 4, 0, 5, 2])
    squares = []
    for image in blocks.astype(float):
        placed = image[order].reshape(2, 3, 3, 3, 3)
        whole = np.concatenate([np.concatenate(list(row), axis=1) for row in placed], axis=0)
        squares += [(whole[:, column] - whole[:, column - 1]).ravel() ** 2 for column in (3, 6)]
        squares += [(whole[3] - whole[2]).ravel() ** 2]
    assert assembly_cost(blocks, order, 2, 3) == pytest.approx(np.concatenate(squares).mean())


def test_cost_without_borders_is_zero():
    assert assembly_cost(np.zeros((1, 1, 2, 2, 3), np.uint8), np.array([0]), 1, 1) == 0


@pytest.mark.parametrize("shape", [(1, 5, 4, 4, 3), (1, 6, 4, 3, 3), (1, 6, 1, 1, 3), (0, 6, 4, 4, 3), (6, 4, 4, 3)])
def test_other_blocks_are_refused(shape):
    with pytest.raises(UserError, match="do not fill 2x3 places"):
        assemble(np.zeros(shape, np.uint8), 2, 3)
