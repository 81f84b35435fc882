"""Reads a key from an adapted model and the public checkpoint that it was adapted from.

Adaptation moves the rows of two tensors and changes the signs of some. Anyone who has both checkpoints can match the
rows by solving a linear assignment problem over their similarities (Kuhn, "The Hungarian method for the assignment
problem", 1955). Fine-tuning changes the rows too little to prevent this.
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

    order: int32 [rows]; row i of the model is row order[i] of the base.
    negative: bool [rows], True for rows with the opposite sign.
    similarity: float64 [rows], the cosine with the matched row; its absolute value if signs are unknown.
    margin: float64 [rows], the similarity minus the largest similarity with any other row of the base. A large margin
      is a certain match; a negative margin means that a more similar row was matched elsewhere.
    """

    order: np.ndarray
    negative: np.ndarray
    similarity: np.ndarray
    margin: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Recovered:
    """The result of `recover`: `adapt(base, permutations)` is the model, up to fine-tuning.

    permutations: all three parts; the identity for parts that the encryption does not use.
    block, pixel: the matchings of the rows of the position embedding and of the patch embedding.
    """

    permutations: Permutations
    block: Match
    pixel: Match


def match_rows(base: np.ndarray, model: np.ndarray, *, signed: bool = False, centered: bool) -> Match:
    """Matches the rows of two matrices one to one, with the largest sum of cosines.

    Args:
      base: float [rows, hidden].
      model: float [rows, hidden], rows of the base in another order, with some change from fine-tuning.
      signed: True if rows may have changed their signs.
      centered: subtract the mean row from both matrices first, because it does not tell rows apart. Do not use this
        with `signed`: changed signs change the mean.

    Raises:
      UserError: the shapes differ, or values are not finite.
    """
    if base.ndim != 2 or base.shape != model.shape:
        raise UserError(
            f"rows of shapes {base.shape} and {model.shape} cannot be matched: give models of the same size"
        )
    if not (np.isfinite(base).all() and np.isfinite(model).all()):
        raise UserError("a model has weights that are not finite: give a model whose training did not diverge")
    cosines = unit_rows(model, centered=centered) @ unit_rows(base, centered=centered).T
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
      base: parameters of the plain Vision Transformer, at the model's image size. Only the patch embedding
        [patch, patch, 3, hidden] and the position embedding [1, prefix tokens + blocks, hidden] are used.
      model: parameters of the adapted model, fine-tuned or not.

    Returns:
      The permutations, and the matchings of rows.

    Raises:
      UserError: a model lacks these tensors, or the models differ in size.
    """
    block = match_rows(position_rows(base), position_rows(model), centered=True)
    pixel = match_rows(patch_rows(base), patch_rows(model), signed=True, centered=False)
    return Recovered(Permutations(block.order, pixel.order, pixel.negative), block, pixel)


def drift(base: Params, model: Params, permutations: Permutations) -> dict[str, float]:
    """Measures the change of the two tensors by fine-tuning: its Frobenius norm, divided by the norm of the base.

    Args:
      base, model: as for `recover`.
      permutations: the permutations that the model was adapted with, or those that `recover` found.

    Returns:
      The relative changes of "patch_embedding" and "position_embedding" (without the rows of prefix tokens).

    Raises:
      UserError: see `recover`.
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
    """Returns the patch embedding as float64 [values, hidden], a row for each value of a patch.

    Raises:
      UserError: the model has no patch embedding.
    """
    family = models.recognize(params)
    kernel = _leaf(params, (family and family.patch_kernel) or "patch embedding")
    return kernel.reshape(-1, kernel.shape[-1])


def position_rows(params: Params) -> np.ndarray:
    """Returns the position embedding as float64 [blocks, hidden], without the rows of prefix tokens.

    Raises:
      UserError: the model has no position embedding.
    """
    family = models.recognize(params)
    rows = _leaf(params, (family and family.positions) or "position embedding")[0]
    return rows[family.prefix_rows(len(rows)) if family else 0 :]


def unit_rows(matrix: np.ndarray, *, centered: bool) -> np.ndarray:
    """Scales rows to length 1 (zero rows stay zero), after subtracting the mean row if `centered`."""
    if centered:
        matrix = matrix - matrix.mean(axis=0)
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.divide(matrix, lengths, out=np.zeros_like(matrix), where=lengths > 0)


def _leaf(params: Params, name: str) -> np.ndarray:
    array = models.leaf(params, name)
    if array is None:
        raise UserError(f"the model has no {name}: give a Vision Transformer")
    return np.asarray(array, np.float64)
