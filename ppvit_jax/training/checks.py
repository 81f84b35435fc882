"""Checks of a run: values that are not finite end it, and results that mean little get a warning."""

import math
import re
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from ppvit_jax import models
from ppvit_jax.config import Config
from ppvit_jax.data import Dataset
from ppvit_jax.errors import UserError
from ppvit_jax.training.results import MetricsLine

# Branches of the training state whose values are checked, and their titles.
_CHECKED = {"params": "parameters", "statistics": "statistics", "opt_state": "optimizer's values"}
# Relative difference of two losses that are equal up to the rounding of float32 sums.
_ROUNDING = 1e-4


def check_finite(name: str, value: float, step: int) -> None:
    """Checks a loss.

    Args:
      name: its name for the message, such as "training loss".
      value: the loss.
      step: number of steps that are done.

    Raises:
      UserError: the loss is NaN or infinite.
    """
    if not math.isfinite(value):
        _diverged(f"the {name} is {value}", step)


def check_state(state: Any, step: int) -> None:
    """Checks parameters, statistics and optimizer state after a step, which the loss of that step does not show.

    Args:
      state: see `ppvit_jax.training.step.State`.
      step: number of steps that are done.

    Raises:
      UserError: a value is NaN or infinite.
    """
    finite = _find_finite({name: state[name] for name in _CHECKED})
    for name, title in _CHECKED.items():
        if not bool(finite[name]):
            _diverged(f"some of the {title} are NaN or infinite", step)


def find_doubts(
    config: Config, dataset: Dataset, model_config: models.ModelConfig, epochs: list[MetricsLine]
) -> list[str]:
    """Returns warnings about a complete run whose result means little.

    Args:
      config: its configuration.
      dataset: training and test images.
      model_config: the model's shape.
      epochs: the epoch lines of metrics.jsonl.
    """
    last, doubts = epochs[-1], []
    has_one_label = dataset.test.labels.ndim == 1
    test_classes = np.unique(dataset.test.labels)
    if has_one_label and len(test_classes) == 1:
        doubts.append(
            f"all {last['test_examples']:,} test images are of the class {dataset.class_names[test_classes[0]]!r}, so "
            f"a test accuracy of {last['test_accuracy']:.2%} tells nothing: test on images of every class"
        )
    elif has_one_label and last.get("predicted_classes") == 1:
        doubts.append(
            f"the model predicts the same class for all {last['test_examples']:,} test images: try another "
            "config.optimizer.learning_rate, or train for more epochs"
        )
    losses = {"for a model that guesses": math.log(max(model_config.num_classes, 1) if has_one_label else 2)}
    if len(epochs) > 1:
        losses["in the first epoch"] = epochs[0]["train_loss"]
    same = [case for case, loss in losses.items() if _are_equal(loss, last["train_loss"])]
    if same and _trains(config, model_config):
        doubts.append(
            f"the training loss did not move: in the last epoch it is {last['train_loss']:.4f}, as {same[0]}; try "
            "another config.optimizer.learning_rate, or train for more epochs"
        )
    return doubts


def _are_equal(first: float | None, second: float | None) -> bool:
    """Returns True for two losses that are equal up to rounding and are not those of a perfect model."""
    return bool(first and second) and math.isclose(first or 0, second or 0, rel_tol=_ROUNDING)


def _trains(config: Config, model_config: models.ModelConfig) -> bool:
    """Returns False if every parameter is frozen on purpose."""
    names = models.parameter_shapes(model_config)
    return not all(any(re.fullmatch(pattern, name) for pattern in config.freeze) for name in names)


def _diverged(problem: str, step: int) -> NoReturn:
    raise UserError(
        f"{problem} at step {step}, because the training diverged: lower config.optimizer.learning_rate, or clip "
        "gradients with config.optimizer.clip_norm, and start again in a new workdir"
    )


@jax.jit
def _find_finite(state: dict[str, Any]) -> dict[str, jax.Array]:
    """Returns, for each branch, a bool [] that is True if all its values are finite."""

    def is_finite(branch: Any) -> jax.Array:
        leaves = [leaf for leaf in jax.tree.leaves(branch) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        return jnp.stack([jnp.array(True), *(jnp.isfinite(leaf).all() for leaf in leaves)]).all()

    return {name: is_finite(branch) for name, branch in state.items()}
