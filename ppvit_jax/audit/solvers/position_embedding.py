"""The grid of blocks from an adapted position embedding alone, without a base model and without any image.

Trained position embeddings of near blocks resemble each other (Dosovitskiy et al., ICLR 2021, figure 7), and the
adaptation moves whole rows, so that the resemblance tells who is whose neighbour.
"""

import numpy as np

from ppvit_jax.audit.solvers import grid
from ppvit_jax.audit.solvers.weights import unit_rows
from ppvit_jax.errors import UserError


def solve(rows: np.ndarray) -> np.ndarray:
    """Finds the plain block of every row.

    Args:
      rows: float64 [blocks, hidden], the position embedding without the rows of prefix tokens; blocks of a square grid.

    Returns:
      int32 [blocks]: which block of the plain image row i is of, up to rotations and flips: an estimate of
      `Permutations.block`.

    Raises:
      UserError: a grid that is not square.
    """
    side = round(len(rows) ** 0.5)
    if side * side != len(rows):
        raise UserError(f"a position embedding of {len(rows)} blocks is not of a square grid: give a square model")
    unit = unit_rows(rows, centred=True)
    return np.argsort(grid.place(unit @ unit.T, side, side)).astype(np.int32)
