"""State of training, batches, and sums of metrics."""

from collections.abc import Mapping
from typing import NotRequired, TypeAlias, TypedDict

import jax
import numpy as np
import optax

from ppvit_jax import models
from ppvit_jax.training.averaging import Weights

# "image": uint8 [batch, height, width, 3]. "label": int [batch], or [batch, classes] of 0 and 1. "number": uint32
# [batch], unique for each image, for encryptions with a key per image. "weight": float [batch], of each example in the
# loss, in training only; without it all have 1. "mask": float [batch], 0 for padding, in evaluation only.
Batch: TypeAlias = Mapping[str, jax.Array | np.ndarray]
# Sums over examples, float []: "loss", "correct", "count".
Metrics: TypeAlias = Mapping[str, jax.Array | np.ndarray]


class State(TypedDict):
    """Training state: everything that a step changes, and the length of the run.

    Attributes:
      params: parameters; see `ppvit_jax.models.Model`.
      statistics: running statistics; see `ppvit_jax.models.Model`.
      opt_state: optimizer state.
      step: int32 [], number of steps that are done.
      total_steps: int32 [], number of steps in the run.
      metrics: sums since the start of the epoch.
      average: average of the weights; only with `config.ema_decay`.
      frozen: the rest of the model, if `params` are not all of it; see `ppvit_jax.training.tuning`.
    """

    params: models.Params
    statistics: models.Statistics
    opt_state: optax.OptState
    step: jax.Array
    total_steps: jax.Array
    metrics: Metrics
    average: NotRequired[Weights]
    frozen: NotRequired[models.Params]


def zero_metrics() -> dict[str, np.ndarray]:
    """Returns the sums of metrics at the start of an epoch."""
    return {name: np.zeros((), np.float32) for name in ("loss", "correct", "count")}
