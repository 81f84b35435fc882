"""Finds the grid of blocks from an adapted position embedding alone, without a base model and without images.

Trained position embeddings of nearby blocks are similar (Dosovitskiy et al., ICLR 2021, figure 7). Adaptation moves
whole rows, so the similarities of rows still show which blocks are neighbors.
"""

import numpy as np

from ppvit_jax.audit.solvers import grid
from ppvit_jax.audit.solvers.weights import unit_rows
from ppvit_jax.errors import UserError


def solve(rows: np.ndarray) -> np.ndarray:
    """Finds the plain block of every row.

    Args:
      rows: float64 [blocks, hidden], the position embedding of a square grid, without the rows of prefix tokens.

    Returns:
      int32 [blocks], an estimate of `Permutations.block` up to rotations and flips: row i belongs to block[i] of the
      plain image.

    Raises:
      UserError: the grid is not square.
    """
    side = round(len(rows) ** 0.5)
    if side * side != len(rows):
        raise UserError(
            f"a position embedding of {len(rows)} blocks is not of a square grid: give a model for square images"
        )
    unit = unit_rows(rows, centered=True)
    return np.argsort(grid.place(unit @ unit.T, side, side)).astype(np.int32)
