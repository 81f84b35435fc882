"""Checks of the fields of a training recipe."""

from typing import Any

from ppvit_jax import models
from ppvit_jax.data.balance import CLASS_WEIGHTS, SAMPLINGS
from ppvit_jax.errors import UserError


def check_recipe(config: Any, model_config: models.ModelConfig) -> None:
    """Checks the choices of a recipe, and that the model has the blocks that they need.

    Args:
      config: the ConfigDict with the fields.
      model_config: the model's shape.

    Raises:
      UserError: a choice is unknown, or needs other models.
    """
    choices = (
        ("remat", config.remat, models.REMATS),
        ("class_weights", config.class_weights, CLASS_WEIGHTS),
        ("data.sampling", config.data.sampling, SAMPLINGS),
    )
    for name, value, allowed in choices:
        if value not in allowed:
            raise UserError(f"config.{name} is {value!r}: use one of {', '.join(map(repr, allowed))}")
    models.set_training_mode(model_config, drop_path=config.drop_path, remat=config.remat)
    if config.optimizer.layer_decay != 1 and not models.family_of(model_config).block:
        raise UserError(
            f"config.optimizer.layer_decay={config.optimizer.layer_decay} needs a model with numbered blocks, "
            f"such as a Vision Transformer, and {config.model} has none: use 1"
        )
