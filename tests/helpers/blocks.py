"""Shared by tests of block-wise encryptions: keys, images with a block size, and the slices of the blocks."""

import numpy as np
from hypothesis import strategies as st

from ppvit_jax.keys import SecretKey

KEYS = st.binary(min_size=32, max_size=32).map(SecretKey)


@st.composite
def images(draw):
    """Draws an image, uint8 [height, width, 3], and its block size."""
    size = draw(st.integers(1, 5))
    shape = size * draw(st.integers(1, 4)), size * draw(st.integers(1, 4)), 3
    return np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, 256, shape, np.uint8), size


def block_places(image, size):
    """Returns the slices of the blocks, row by row."""
    return [
        np.s_[row : row + size, column : column + size]
        for row in range(0, image.shape[0], size)
        for column in range(0, image.shape[1], size)
    ]
