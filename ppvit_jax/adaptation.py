"""Domain adaptation: the permutations of the images, applied to the two weight tensors that meet them.

The patch embedding's rows follow the pixel permutation (the paper's equation 19), the position embedding's
rows the block permutation (equations 17 and 18). The adapted model then computes on encrypted images what
the original computes on plain ones.
"""

from typing import Any

import numpy as np

from ppvit_jax.encryption import Permutations
from ppvit_jax.errors import UserError

Params = dict[str, Any]


def adapt(params: Params, permutations: Permutations) -> Params:
    """Adapts a plain model to encrypted images.

    Args:
      params: a ViT's parameters; `embedding/kernel` [patch, patch, 3, hidden], `pos_embedding`
        [1, 1 + blocks, hidden], already of the target grid. Numpy or JAX arrays; also gradients or
        optimiser moments of that structure.
      permutations: those that encrypt the images.

    Returns:
      A new tree that shares the untouched leaves; `params` is not changed. The class token's row stays.

    Raises:
      UserError: the permutations are of another size than the tensors.
    """
    return _permute(params, permutations.block, permutations.pixel)


def restore(params: Params, permutations: Permutations) -> Params:
    """The inverse of `adapt`: the model for plain images."""
    return adapt(params, permutations.inverse())


def rekey(params: Params, old: Permutations, new: Permutations) -> Params:
    """Moves a model adapted with `old` to `new` in one step, without a plain model in between.

    The same as `adapt(restore(params, old), new)`; either may lack a permutation that the other has.

    Raises:
      UserError: the permutations are of another size than the tensors.
    """

    def compose(old_one: np.ndarray | None, new_one: np.ndarray | None) -> np.ndarray | None:
        if old_one is None:
            return new_one
        undone = np.argsort(old_one)
        if new_one is None:
            return undone
        if len(new_one) != len(undone):
            raise UserError(f"permutations of {len(undone)} and {len(new_one)} places are of different sizes")
        return undone[new_one]

    return _permute(params, compose(old.block, new.block), compose(old.pixel, new.pixel))


def _permute(params: Params, block: np.ndarray | None, pixel: np.ndarray | None) -> Params:
    params = dict(params)
    if pixel is not None:
        kernel = params["embedding"]["kernel"]
        _check("pixel", "values in a patch", pixel, int(np.prod(kernel.shape[:3])))
        rows = kernel.reshape(-1, kernel.shape[-1])[pixel]
        params["embedding"] = {**params["embedding"], "kernel": rows.reshape(kernel.shape)}
    if block is not None:
        transformer = params["Transformer"]
        embedding = transformer["posembed_input"]["pos_embedding"]
        _check("block", "patches in an image", block, embedding.shape[1] - 1)
        rows = embedding[:, np.concatenate([[0], np.asarray(block) + 1])]
        params["Transformer"] = {**transformer, "posembed_input": {"pos_embedding": rows}}
    return params


def _check(kind: str, what: str, permutation: np.ndarray, length: int) -> None:
    if len(permutation) != length:
        raise UserError(
            f"the {kind} permutation has {len(permutation)} places, and the model has {length} {what}: "
            "resize the model to the images' size before adapting it, with permutations of that size"
        )
