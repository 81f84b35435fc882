"""Exponential moving average of the weights, which is evaluated and handed over in their place."""

from collections.abc import Mapping
from typing import Any, TypedDict

import jax

from ppvit_jax import models


class Weights(TypedDict):
    """Weights of a model.

    Attributes:
      params: parameters; see `ppvit_jax.models.Model`.
      statistics: running statistics; see `ppvit_jax.models.Model`.
    """

    params: models.Params
    statistics: models.Statistics


def start_average(params: models.Params, statistics: models.Statistics) -> Weights:
    """Returns the average before the first step: a copy, because a training step overwrites the arrays of its state."""
    return jax.tree.map(lambda array: array.copy(), Weights(params=params, statistics=statistics))


def update_average(average: Weights, params: models.Params, statistics: models.Statistics, decay: float) -> Weights:
    """Returns a' = a + (1 - decay) (w - a) = decay a + (1 - decay) w for each array, as timm's ModelEmaV2.

    In the first form, a weight that does not change is its own average to the bit.
    """
    weights = Weights(params=params, statistics=statistics)
    return jax.tree.map(lambda a, w: a + (1 - decay) * (w - a), average, weights)


def select_weights(state: Mapping[str, Any]) -> Weights:
    """Returns the weights of a training state that are evaluated and handed over: their average if there is one."""
    return state.get("average") or Weights(params=state["params"], statistics=state["statistics"])
