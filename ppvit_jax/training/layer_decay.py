"""Layer-wise learning-rate decay (arXiv 2003.10555, section A.1; arXiv 2106.08254, table 9).

References: `param_groups_lrd` of facebookresearch/mae, util/lr_decay.py, and `param_groups_layer_decay` of timm. timm
counts the last normalization to the last block; MAE and this module count it to the layers after it.
"""

import functools
from typing import Any

import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from ppvit_jax import models


def layer_scale(config: models.ModelConfig, decay: float, name: str) -> float:
    """Returns the factor of a parameter's learning rate.

    It is decay**(blocks + 1 - depth). The depth is 0 for the parameters before the blocks, such as the patch embedding,
    1 + i for those of block i, and blocks + 1 for those after the blocks, such as the head, whose factor is 1.

    Args:
      config: the shape of a model whose family has numbered blocks.
      decay: the factor between neighboring blocks.
      name: the parameter's name.
    """
    depth = models.family_of(config).depth(name)
    return 1.0 if depth is None else decay ** (_count_blocks(config) + 1 - depth)


@functools.lru_cache(maxsize=32)
def _count_blocks(config: models.ModelConfig) -> int:
    family = models.family_of(config)
    return max(family.depth(name) or 0 for name in models.parameter_shapes(config))


def scale_by_layer(config: models.ModelConfig, decay: float) -> optax.GradientTransformation:
    """Multiplies the updates of each parameter by its `layer_scale`.

    It comes after the optimizer, whose updates are all proportional to the learning rate, also those of the decoupled
    weight decay.
    """

    def scale(updates: Any, params: Any) -> Any:
        flat: dict[str, Any] = flatten_dict(updates, sep="/")
        return unflatten_dict({name: layer_scale(config, decay, name) * flat[name] for name in flat}, sep="/")

    return optax.stateless(scale)
