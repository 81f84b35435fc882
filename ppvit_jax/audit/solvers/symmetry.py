"""The 8 symmetries of a square. Without the plain image, attacks recover a picture only up to one of them."""

import itertools

import numpy as np

# For each symmetry: True to exchange rows and columns, then the number of quarter turns. The first is the identity.
SYMMETRIES = tuple(itertools.product((False, True), range(4)))


def transform(images: np.ndarray, flip: bool, turn: int, first: int = 0) -> np.ndarray:
    """Applies one of `SYMMETRIES` to the axes `first` and `first + 1`, which have equal lengths; returns a view."""
    axes = (first, first + 1)
    return np.rot90(np.swapaxes(images, *axes) if flip else images, turn, axes)
