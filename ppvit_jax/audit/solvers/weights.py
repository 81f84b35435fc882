"""Reads a key off an adapted model, given the public checkpoint that it was adapted from.

Adaptation moves the rows of two tensors and changes the sign of some. Who has both checkpoints finds the row that each
one came from by solving a linear assignment problem over the rows' similarities (Kuhn, "The Hungarian method for the
assignment problem", 1955), and fine-tuning in between changes the rows too little to hide that.
"""

import dataclasses

import numpy as np
from scipy.optimize import linear_sum_assignment

from ppvit_jax import models
from ppvit_jax.adaptation import restore
from ppvit_jax.encryption import Permutations
from ppvit_jax.errors import UserError
from ppvit_jax.models import Params


@dataclasses.dataclass(frozen=True, eq=False)
class Match:
    """A matching of the rows of a model with the rows of its base.

    order: int32 [rows], row i of the model is row order[i] of the base.
    negative: bool [rows], whether with the opposite sign.
    similarity: float64 [rows], the cosine with the matched row, of the absolute value if signs were unknown.
    margin: float64 [rows], that minus the largest with any other row of the base: how certain the match is. Negative
      where another row was more similar, and taken.
    """

    order: np.ndarray
    negative: np.ndarray
    similarity: np.ndarray
    margin: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Recovered:
    """The result of `recover`: `adapt(base, permutations)` is the model, up to fine-tuning.

    permutations: all three parts, the identity where the encryption does not move anything.
    block, pixel: how the rows of the position embedding and of the patch embedding matched.
    """

    permutations: Permutations
    block: Match
    pixel: Match


def match_rows(base: np.ndarray, model: np.ndarray, *, signed: bool = False, centred: bool) -> Match:
    """Matches the rows of two matrices one to one, with the largest sum of cosines.

    Args:
      base: float [rows, hidden].
      model: float [rows, hidden], rows of the base in another order, changed more or less.
      signed: rows may have changed their signs.
      centred: take the mean row off both first. What all rows share tells none apart; not for changed signs, which
        change the mean as well.

    Raises:
      UserError: shapes that differ, or values that are not finite.
    """
    if base.ndim != 2 or base.shape != model.shape:
        raise UserError(
            f"rows of shapes {base.shape} and {model.shape} cannot be matched: give models of the same size"
        )
    if not (np.isfinite(base).all() and np.isfinite(model).all()):
        raise UserError("a model has weights that are not finite: give one whose training did not diverge")
    cosines = unit_rows(model, centred=centred) @ unit_rows(base, centred=centred).T
    scores = np.abs(cosines) if signed else cosines
    rows, order = linear_sum_assignment(scores, maximize=True)
    similarity = scores[rows, order]
    others = scores.copy()
    others[rows, order] = -1
    negative = (cosines[rows, order] < 0) if signed else np.zeros(len(rows), bool)
    return Match(order.astype(np.int32), negative, similarity, similarity - others.max(axis=1))


def recover(base: Params, model: Params) -> Recovered:
    """Recovers the permutations that a model was adapted with, whatever the method.

    Args:
      base: parameters of the plain Vision Transformer, at the model's image size: of the patch embedding
        [patch, patch, 3, hidden] and of the position embedding [1, prefix tokens + blocks, hidden].
      model: parameters of the adapted one, tuned or not.

    Raises:
      UserError: a model without these tensors, or models of different sizes.
    """
    block = match_rows(position_rows(base), position_rows(model), centred=True)
    pixel = match_rows(patch_rows(base), patch_rows(model), signed=True, centred=False)
    return Recovered(Permutations(block.order, pixel.order, pixel.negative), block, pixel)


def drift(base: Params, model: Params, permutations: Permutations) -> dict[str, float]:
    """Measures how far fine-tuning moved the two tensors: the Frobenius norm of the change, relative to the base's.

    Args:
      base, model: as for `recover`.
      permutations: those that the model was adapted with, or `recover`'s.

    Returns:
      "patch_embedding" and "position_embedding" (without the rows of prefix tokens).

    Raises:
      UserError: as `recover`.
    """
    restored = restore(model, permutations)
    changes = {}
    for name, rows in (("patch_embedding", patch_rows), ("position_embedding", position_rows)):
        before, after = rows(base), rows(restored)
        if before.shape != after.shape:
            raise UserError(f"the {name} has shapes {before.shape} and {after.shape}: give models of the same size")
        changes[name] = float(np.linalg.norm(after - before) / np.linalg.norm(before))
    return changes


def patch_rows(params: Params) -> np.ndarray:
    """The patch embedding as float64 [values, hidden], a row for each value of a patch.

    Raises:
      UserError: the model has none.
    """
    family = models.recognize(params)
    kernel = _leaf(params, (family and family.patch_kernel) or "patch embedding")
    return kernel.reshape(-1, kernel.shape[-1])


def position_rows(params: Params) -> np.ndarray:
    """The position embedding as float64 [blocks, hidden], without the rows of prefix tokens.

    Raises:
      UserError: the model has none.
    """
    family = models.recognize(params)
    rows = _leaf(params, (family and family.positions) or "position embedding")[0]
    return rows[family.prefix_tokens if family else 0 :]


def unit_rows(matrix: np.ndarray, *, centred: bool) -> np.ndarray:
    """Rows of length 1 (of 0 where they were 0), after taking the mean row off if centred."""
    if centred:
        matrix = matrix - matrix.mean(axis=0)
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.divide(matrix, lengths, out=np.zeros_like(matrix), where=lengths > 0)


def _leaf(params: Params, name: str) -> np.ndarray:
    array = models.leaf(params, name)
    if array is None:
        raise UserError(f"the model has no {name}: give a Vision Transformer in Google's layout")
    return np.asarray(array, np.float64)
