"""Domain adaptation: permutes a model's weights to match the encryption of the images.

The rows of the patch embedding follow the pixel permutation (the paper's equation 19), and the rows of the position
embedding follow the block permutation (equations 17 and 18). On encrypted images, the adapted model then computes the
same function as the original on plain images. Two extensions go beyond the paper: rows of the patch embedding change
sign where the encryption inverts values, and a ConvMixer's adaptive matrix follows the block permutation. Each model
family names these parameters (`ppvit_jax.models.family.Family`).
"""

from collections.abc import Sequence

import chex
import numpy as np

from ppvit_jax.checkpoint import describe_normalization
from ppvit_jax.encryption import Permutations
from ppvit_jax.errors import UserError
from ppvit_jax.models import Family, Params, leaf, recognize, replace_leaf


def adapt(params: Params, permutations: Permutations, offset: float = 0.0) -> Params:
    """Adapts a plain model to encrypted images.

    Args:
      params: a model's parameters, numpy or JAX arrays; the family is recognized by their names. Adaptation changes
        the patch embedding, [patch, patch, 3, hidden] and [hidden], and the position embedding
        [1, prefix tokens + blocks, hidden], which must already fit the image size, or the mixing matrix
        [blocks, blocks]. Gradients and optimizer moments of the same structure adapt too (second moments are squares:
        give them without `permutations.negative`).
      permutations: the permutations that encrypt the images, alike in all blocks.
      offset: the sum of a normalized value and its inverse, `inversion_offset(mean, std)`. If the mean is 0.5, the
        offset is 0, an inversion is a change of sign, and gradients adapt like parameters. Otherwise the bias changes
        too: the logits stay exact, but training does not.

    Returns:
      A new tree, which shares the unchanged leaves with `params`. The rows of prefix tokens stay in place.

    Raises:
      UserError: the permutations do not have the size of the tensors, they differ from block to block, or they permute
        blocks and the model has no position embedding or mixing matrix.
    """
    if not permutations.alike:
        raise UserError("permutations that differ from block to block need a kernel for each block: use shared ones")
    family = recognize(params)
    params = dict(params)
    if permutations.pixel is not None or permutations.negative is not None:
        params = _follow_values(params, family, permutations.pixel, permutations.negative, offset)
    if permutations.block is not None:
        params = _follow_blocks(params, family, permutations.block)
    return params


def restore(params: Params, permutations: Permutations, offset: float = 0.0) -> Params:
    """Undoes `adapt`: returns the model for plain images. Arguments and errors are those of `adapt`."""
    return adapt(params, permutations.inverse(), offset)


def rekey(params: Params, old: Permutations, new: Permutations, offset: float = 0.0) -> Params:
    """Changes a model adapted to `old` into one adapted to `new`, without computing the plain model.

    The result equals `adapt(restore(params, old), new)`. Either may lack a permutation that the other has.

    Args:
      params: parameters adapted to `old`.
      old: the permutations that the model is adapted to.
      new: the permutations to adapt it to.
      offset: as for `adapt`.

    Raises:
      UserError: the permutations do not have the size of the tensors.
    """
    undone = old.inverse()
    return adapt(
        params,
        Permutations(
            block=_compose(undone.block, new.block),
            pixel=_compose(undone.pixel, new.pixel),
            negative=_negatives(undone, new),
        ),
        offset,
    )


def inversion_offset(mean: float, std: float) -> float:
    """Returns the sum of a normalized value and its normalized inverse: (1 - 2 mean) / std.

    A value x is normalized as (x / 255 - mean) / std, and its inverse is 255 - x.
    """
    return (1 - 2 * mean) / std


def fold_normalization(
    params: Params,
    old: tuple[Sequence[float], Sequence[float]],
    new: tuple[Sequence[float], Sequence[float]],
) -> Params:
    """Rewrites a model for images that are normalized by another mean and standard deviation.

    The model computes the same function of an image p, whose values are from 0 to 1. It took x = (p - m) / s, and takes
    y = (p - m') / s'. For channel c of a patch, x = (s'_c y + m'_c - m_c) / s_c. The patch embedding follows exactly:
    K'[..., c, :] = K[..., c, :] s'_c / s_c, and b' = b + the sum of K[..., c, :] (m'_c - m_c) / s_c over a patch.

    Args:
      params: a model's parameters, numpy or JAX arrays, with a patch embedding [patch, patch, 3, hidden] and its bias
        [hidden].
      old: mean m and standard deviation s that the model was made with, three numbers each.
      new: mean m' and standard deviation s' of the images that it is to take.

    Returns:
      A new tree of the same dtypes, which shares the unchanged leaves with `params`. The arithmetic is in float64.

    Raises:
      UserError: the two differ, and the model has no patch embedding that could follow.
    """
    (mean, std), (new_mean, new_std) = (tuple(np.asarray(values, np.float64) for values in pair) for pair in (old, new))
    if (mean == new_mean).all() and (std == new_std).all():
        return params
    family = recognize(params)
    if family is None or (kernel := leaf(params, family.patch_kernel)) is None:
        raise UserError(
            f"the model was made with {describe_normalization(*old)}, and has no patch embedding that could be "
            f"rewritten for {describe_normalization(*new)}: normalize the images as the model needs it"
        )
    chex.assert_shape(kernel, (None, None, 3, None))
    rows = np.asarray(kernel, np.float64)
    folded = rows * (new_std / std)[:, None]
    params = replace_leaf(params, family.patch_kernel, folded.astype(kernel.dtype))
    return _add_to_patches(params, family, np.einsum("abcd,c->d", rows, (new_mean - mean) / std))


def _add_to_patches(params: Params, family: Family, constant: np.ndarray) -> Params:
    """Adds a constant [hidden] to every embedded patch: to the bias, or to the patches' positions without one."""
    if (bias := leaf(params, family.patch_bias)) is not None:
        return replace_leaf(params, family.patch_bias, (np.asarray(bias, np.float64) + constant).astype(bias.dtype))
    positions = leaf(params, family.positions)
    moved = np.array(positions, np.float64)
    moved[:, family.prefix_rows(positions.shape[1]) :] += constant
    return replace_leaf(params, family.positions, moved.astype(positions.dtype))


def _follow_values(
    params: Params, family: Family | None, pixel: np.ndarray | None, negative: np.ndarray | None, offset: float
) -> Params:
    """Adapts the patch embedding to the permutation and inversion of a block's values (equation 19).

    E'[j] = s[j] E[pixel[j]], where j counts the values of a patch and s[j] is -1 if value j is inverted, else 1.
    """
    if family is None or (kernel := leaf(params, family.patch_kernel)) is None:
        raise UserError("the model has no patch embedding, so it cannot be adapted: use a ViT or a ConvMixer")
    chex.assert_rank(kernel, 4)
    rows = kernel.reshape(-1, kernel.shape[-1])
    if pixel is not None:
        _check_size("pixel permutation", "values in a patch", pixel, len(rows))
        rows = rows[pixel]
    if negative is not None:
        _check_size("mask of inverted values", "values in a patch", negative, len(rows))
        if offset:
            # The plain rows receive offset - x in place of each inverted value x.
            bias = leaf(params, family.patch_bias)
            params = replace_leaf(params, family.patch_bias, bias + offset * rows[negative].sum(0))
        signs = np.where(negative, -1, 1).astype(rows.dtype)
        rows = rows * signs[:, None]
    return replace_leaf(params, family.patch_kernel, rows.reshape(kernel.shape))


def _follow_blocks(params: Params, family: Family | None, block: np.ndarray) -> Params:
    """Adapts the position embedding (equations 17 and 18), or else the mixing matrix, to the permutation of blocks.

    E_pos'[n + i] = E_pos[n + block[i]] after the n prefix tokens, whose rows stay; or M'[:, i] = M[:, block[i]].
    """
    if family is not None and (positions := leaf(params, family.positions)) is not None:
        chex.assert_rank(positions, 3)
        prefix = family.prefix_rows(positions.shape[1])
        _check_size("block permutation", "patches in an image", block, positions.shape[1] - prefix)
        order = np.concatenate([np.arange(prefix), prefix + np.asarray(block)])
        return replace_leaf(params, family.positions, positions[:, order])
    if family is not None and (matrix := leaf(params, family.mixing_matrix)) is not None:
        _check_size("block permutation", "patches in an image", block, matrix.shape[1])
        return replace_leaf(params, family.mixing_matrix, matrix[:, np.asarray(block)])
    raise UserError(
        "the model has no position embedding, so it cannot be adapted to scrambled blocks: use an encryption "
        "that leaves blocks in place, or config.adapt=False"
    )


def _compose(undone: np.ndarray | None, new: np.ndarray | None) -> np.ndarray | None:
    if undone is None or new is None:
        return new if undone is None else undone
    if len(new) != len(undone):
        raise UserError(
            f"permutations of {len(undone)} and {len(new)} places have different sizes: derive them for one size"
        )
    return undone[new]


def _negatives(undone: Permutations, new: Permutations) -> np.ndarray | None:
    before = undone.negative
    if before is not None and new.pixel is not None:
        before = before[new.pixel]
    if before is None or new.negative is None:
        return new.negative if before is None else before
    return before ^ new.negative


def _check_size(name: str, unit: str, permutation: np.ndarray, length: int) -> None:
    if len(permutation) != length:
        raise UserError(
            f"the {name} has {len(permutation)} places, and the model has {length} {unit}: "
            "resize the model to the image size first, and derive permutations for that size"
        )
