"""Parameters and statistics of a model, from the arrays of a checkpoint and back."""

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from ppvit_jax import models
from ppvit_jax.errors import UserError
from ppvit_jax.models import Params

# The subtree of arrays that are not trained by gradients, such as a batch normalization's running mean.
_STATISTICS = "statistics"


def join(params: Params, statistics: models.Statistics) -> Params:
    """Joins a model's parameters and its statistics, if it has any, into the tree that `write` takes."""
    return {**params, _STATISTICS: statistics} if statistics else params


def split(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], models.Statistics]:
    """Splits the arrays that `read` returns into the parameters, by name, and the tree of statistics."""
    prefix = f"{_STATISTICS}/"
    statistics = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    params = {name: array for name, array in arrays.items() if not name.startswith(prefix)}
    return params, unflatten_dict(statistics, sep="/")


def to_params(
    arrays: dict[str, np.ndarray], config: models.ModelConfig, *, keep_head: bool, where: str = "the checkpoint"
) -> Params:
    """Fits a checkpoint's arrays to a model, as the original code does for fine-tuning.

    The position embedding is interpolated to the model's grid. Without `keep_head`, the head is new: zeros for the
    model's number of classes. Optional layers, such as a ViT's `pre_logits`, are dropped if the model lacks them.

    Args:
      arrays: the arrays that `read` returns.
      config: the model's shape.
      keep_head: True keeps the checkpoint's head (ImageNet-21k's, or a tuned one).
      where: the checkpoint's name, for messages.

    Returns:
      The parameter tree of numpy arrays, float32 (float64 if the compute dtype is float64).

    Raises:
      UserError: the arrays do not fit; the message lists every missing, extra and wrongly shaped parameter.
    """
    expected = models.parameter_shapes(config)
    unused = models.unused_layers(config, keep_head=keep_head)
    arrays = {name: array for name, array in arrays.items() if not name.startswith(unused)}
    arrays = models.resize_positions(arrays, config)
    if not keep_head:
        heads = models.family_of(config).heads
        arrays |= {name: np.zeros(shape, np.float32) for name, shape in expected.items() if name.startswith(heads)}

    problems = []
    if missing := sorted(expected.keys() - arrays.keys()):
        problems.append(f"missing {', '.join(missing)}")
    if extra := sorted(arrays.keys() - expected.keys()):
        problems.append(f"extra {', '.join(extra)}")
    wrong = [
        f"{name} has {arrays[name].shape} and needs {shape}"
        for name, shape in sorted(expected.items())
        if name in arrays and arrays[name].shape != shape
    ]
    if wrong:
        problems.append(f"wrong shapes: {', '.join(wrong)}")
    if problems:
        raise UserError(f"{where} does not fit the model: {'; '.join(problems)}")
    dtype = np.float64 if config.dtype == "float64" else np.float32
    return unflatten_dict({name: arrays[name].astype(dtype, copy=False) for name in expected}, sep="/")


def check_statistics(statistics: models.Statistics, expected: models.Statistics, where: str) -> None:
    """Checks that a checkpoint's statistics have the shapes of a model's.

    Raises:
      UserError: the shapes or the names differ.
    """
    if jax.tree.map(np.shape, statistics) != jax.tree.map(np.shape, expected):
        raise UserError(f"{where} does not fit the model: its statistics are of another shape")
