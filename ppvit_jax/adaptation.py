"""Domain adaptation: what the encryption does to the images, done to the weights that meet them.

The patch embedding's rows follow the pixel permutation (the paper's equation 19), the position embedding's rows the
block permutation (equations 17 and 18). The adapted model then computes on encrypted images what the original computes
on plain ones. Beyond the paper: the patch embedding's rows change their sign where the encryption inverts values, and
a ConvMixer's adaptive matrix follows the block permutation. Each family of models says which of its parameters these
are (`ppvit_jax.models.family.Family`).
"""

import chex
import numpy as np

from ppvit_jax.encryption import Permutations
from ppvit_jax.errors import UserError
from ppvit_jax.models import Family, Params, leaf, recognize, replace_leaf


def adapt(params: Params, permutations: Permutations, offset: float = 0.0) -> Params:
    """Adapts a plain model to encrypted images.

    Args:
      params: a model's parameters, by which its family is recognized: of the patch embedding [patch, patch, 3, hidden]
        and [hidden], of the position embedding [1, prefix tokens + blocks, hidden], already of the target grid, or of
        the mixing matrix [blocks, blocks]. Numpy or JAX arrays; also gradients or optimizer moments of that structure
        (of second moments, which are squares, without `permutations.negative`).
      permutations: those that encrypt the images, alike in all blocks.
      offset: the sum of a normalized value and its inverse, `inversion_offset(mean, std)`. At mean 0.5 it is 0, an
        inversion is a change of sign, and gradients adapt like parameters. Elsewhere the bias moves as well: logits
        stay exact, and training does not.

    Returns:
      A new tree that shares the untouched leaves; `params` is not changed. The rows of prefix tokens stay.

    Raises:
      UserError: the permutations are of another size than the tensors, differ from block to block, or move blocks of
        a model that has nothing to follow them.
    """
    if not permutations.alike:
        raise UserError("permutations that differ from block to block cannot be absorbed by one patch embedding")
    family = recognize(params)
    params = dict(params)
    if permutations.pixel is not None or permutations.negative is not None:
        params = _follow_values(params, family, permutations.pixel, permutations.negative, offset)
    if permutations.block is not None:
        params = _follow_blocks(params, family, permutations.block)
    return params


def restore(params: Params, permutations: Permutations, offset: float = 0.0) -> Params:
    """Undoes `adapt`: returns the model for plain images."""
    return adapt(params, permutations.inverse(), offset)


def rekey(params: Params, old: Permutations, new: Permutations, offset: float = 0.0) -> Params:
    """Moves a model adapted with `old` to `new` in one step, without a plain model in between.

    The same as `adapt(restore(params, old), new)`; either may lack a permutation that the other has.

    Raises:
      UserError: the permutations are of another size than the tensors.
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
    """Returns the sum of a value x, normalized as (x / 255 - mean) / std, and its inverse 255 - x."""
    return (1 - 2 * mean) / std


def _follow_values(
    params: Params, family: Family | None, pixel: np.ndarray | None, negative: np.ndarray | None, offset: float
) -> Params:
    """Makes the patch embedding follow the values of a block (equation 19).

    E'[j] = s[j] E[pixel[j]], where s[j] is -1 for an inverted value and 1 for another; j counts a patch's values.
    """
    if family is None or (kernel := leaf(params, family.patch_kernel)) is None:
        raise UserError("the model has no patch embedding to adapt: of a ViT or a ConvMixer it absorbs an encryption")
    chex.assert_rank(kernel, 4)
    rows = kernel.reshape(-1, kernel.shape[-1])
    if pixel is not None:
        _check_size("pixel permutation", "values in a patch", pixel, len(rows))
        rows = rows[pixel]
    if negative is not None:
        _check_size("mask of inverted values", "values in a patch", negative, len(rows))
        if offset:
            # Through the inverted values the plain rows see offset - x.
            bias = leaf(params, family.patch_bias)
            params = replace_leaf(params, family.patch_bias, bias + offset * rows[negative].sum(0))
        signs = np.where(negative, -1, 1).astype(rows.dtype)
        rows = rows * signs[:, None]
    return replace_leaf(params, family.patch_kernel, rows.reshape(kernel.shape))


def _follow_blocks(params: Params, family: Family | None, block: np.ndarray) -> Params:
    """Makes the position embedding follow the blocks (equations 17 and 18), or the mixing matrix if there is none.

    E_pos'[n + i] = E_pos[n + block[i]] after the n prefix tokens, whose rows stay; M'[:, i] = M[:, block[i]].
    """
    if family is not None and (positions := leaf(params, family.positions)) is not None:
        chex.assert_rank(positions, 3)
        prefix = family.prefix_tokens
        _check_size("block permutation", "patches in an image", block, positions.shape[1] - prefix)
        order = np.concatenate([np.arange(prefix), prefix + np.asarray(block)])
        return replace_leaf(params, family.positions, positions[:, order])
    if family is not None and (matrix := leaf(params, family.mixing_matrix)) is not None:
        _check_size("block permutation", "patches in an image", block, matrix.shape[1])
        return replace_leaf(params, family.mixing_matrix, matrix[:, np.asarray(block)])
    raise UserError(
        "the model has no position embedding, so that nothing in it can follow scrambled blocks: use an encryption "
        "that leaves blocks in their places, or config.adapt=False"
    )


def _compose(undone: np.ndarray | None, new: np.ndarray | None) -> np.ndarray | None:
    if undone is None or new is None:
        return new if undone is None else undone
    if len(new) != len(undone):
        raise UserError(f"permutations of {len(undone)} and {len(new)} places are of different sizes")
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
            "resize the model to the images' size before adapting it, with permutations of that size"
        )
