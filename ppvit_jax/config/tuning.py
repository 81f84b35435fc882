"""Check of `config.tuning`: parameter-efficient methods, and the models that have them."""

from typing import Any

from ppvit_jax import models
from ppvit_jax.errors import UserError
from ppvit_jax.models.low_rank import find_layers

METHODS = ("full", "lora", "probe")


def check_tuning(config: Any, model_config: models.ModelConfig) -> None:
    """Checks that a run can be tuned by its method.

    Args:
      config: the configuration.
      model_config: the model's shape; the number of classes does not matter.

    Raises:
      UserError: the method is unknown, or the model or another field does not go with it.
    """
    method = config.tuning.method
    if method not in METHODS:
        raise UserError(f"config.tuning.method is {method!r}: use one of {', '.join(map(repr, METHODS))}")
    if method == "full":
        return
    if not config.checkpoint:
        raise UserError(
            f"config.tuning.method={method} keeps the model's weights, and config.checkpoint is empty: name a "
            "checkpoint, or set config.tuning.method=full"
        )
    if tuple(config.freeze):
        raise UserError(
            f"config.freeze is for config.tuning.method=full, and {method} freezes the rest of the model "
            "by itself: leave one of them out"
        )
    family = models.family_of(model_config)
    if family.infer is None or models.abstract_statistics(model_config):
        raise UserError(
            f"config.tuning.method={method} is for Vision Transformers, and config.model={config.model} is a "
            f"{family.title}: choose a Vision Transformer, or set config.tuning.method=full"
        )
    if method == "lora":
        find_layers(models.parameter_shapes(model_config), config.tuning.layers)
