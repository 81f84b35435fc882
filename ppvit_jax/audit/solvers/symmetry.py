"""The 8 symmetries of a square, up to which a picture is known that nobody has seen upright."""

import itertools

import numpy as np

# Whether rows and columns are exchanged, and how many quarter turns follow; the first changes nothing.
SYMMETRIES = tuple(itertools.product((False, True), range(4)))


def transform(images: np.ndarray, flip: bool, turn: int, first: int = 0) -> np.ndarray:
    """Applies one of `SYMMETRIES` to the square in the axes `first` and `first + 1`; a view."""
    axes = (first, first + 1)
    return np.rot90(np.swapaxes(images, *axes) if flip else images, turn, axes)
