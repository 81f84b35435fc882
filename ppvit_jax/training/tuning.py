"""Tensors that a run trains, and those that stay as they are: full tuning, LoRA, linear probe and frozen parameters.

The gradient is taken with respect to the trained tensors alone, so that the others have neither a gradient nor a state
of the optimizer. Full tuning keeps the whole model in the state's "params", frozen parameters among them. LoRA and the
linear probe keep only the trained tensors there, and the rest of the model in "frozen", which no saved state holds.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from ppvit_jax import checkpoint, models
from ppvit_jax.config import Config
from ppvit_jax.models import low_rank
from ppvit_jax.training.optimizer import find_frozen

# Entry of a training state that never changes, and that each run takes from its checkpoint.
FROZEN = "frozen"


class Tuning:
    """Division of a model's parameters into trained and frozen ones.

    Attributes:
      names: tree of the parameters in the state's "params"; the leaves mean nothing.
      freeze: regular expressions of those among them that are not trained.
    """

    def __init__(self, config: Config, model_config: models.ModelConfig):
        """Divides the parameters of a model.

        Args:
          config: the configuration; `tuning` and `freeze` are used.
          model_config: the model's shape.

        Raises:
          UserError: an expression in `config.freeze` or `config.tuning.layers` is invalid or matches nothing.
        """
        shapes, family = models.parameter_shapes(model_config), models.family_of(model_config)
        self._settings, self._heads = config.tuning, family.heads
        self._is_full = config.tuning.method == "full"
        self._layers: dict[str, tuple[int, int]] = {}
        if config.tuning.method == "lora":
            self._layers = low_rank.find_layers(shapes, config.tuning.layers)
        names: dict[str, Any] = dict(shapes)
        if not self._is_full:
            factors = low_rank.init_factors(self._layers, 1, 0)
            names = {name: shape for name, shape in shapes.items() if name.startswith(self._heads)}
            names |= flatten_dict(factors, sep="/")
        self.names: models.Params = unflatten_dict(names, sep="/")
        # A weight decay would change fixed parameters, although they have no gradient.
        fixed = tuple(map(re.escape, family.fixed))
        self.freeze = (*config.freeze, *fixed) if self._is_full else ()
        self._frozen = find_frozen(names, self.freeze)

    def init(self, params: models.Params, seed: int) -> tuple[models.Params, models.Params]:
        """Divides the initial parameters into those of the state's "params", and the rest of the model.

        Args:
          params: all parameters of the model.
          seed: seed of new factors.

        Returns:
          (params, rest); the rest is empty for full tuning.
        """
        if self._is_full:
            return params, {}
        heads, rest = _divide(params, lambda name: name.startswith(self._heads))
        dtype = next(iter(flatten_dict(params).values())).dtype
        factors = low_rank.init_factors(self._layers, self._settings.rank, seed, dtype)
        return _join(heads, factors), rest

    def divide(self, params: models.Params) -> tuple[models.Params, models.Params]:
        """Divides the state's "params" into those that have a gradient, and frozen ones."""
        if not self._frozen:
            return params, {}
        return _divide(params, lambda name: name not in self._frozen)

    def complete(self, params: models.Params, *others: models.Params) -> models.Params:
        """Returns the parameters that the model computes with.

        Args:
          params: the state's "params", or the part of them that has a gradient.
          *others: trees with the rest of the model.
        """
        whole = _join(params, *others)
        if not self._layers:
            return whole
        factors, base = _divide(whole, low_rank.is_factor)
        return low_rank.merge_factors(base, factors, self._settings.alpha)

    def fill(self, gradients: models.Params, params: models.Params) -> models.Params:
        """Returns gradients with zeros for frozen parameters, which the optimizer ignores."""
        if not self._frozen:
            return gradients
        flat: dict[str, Any] = flatten_dict(params)
        return unflatten_dict({name: jnp.zeros_like(leaf) for name, leaf in flat.items()} | flatten_dict(gradients))


def describe_delta(config: Config, model_config: models.ModelConfig, params: models.Params) -> checkpoint.Delta | None:
    """Returns the record of the delta that a run hands over, or None if it hands over a whole model.

    Args:
      config: the configuration.
      model_config: the model's shape.
      params: all parameters with which the run begins, numpy arrays.
    """
    settings, name = config.tuning, config.checkpoint
    if settings.method == "full":
        return None
    lora = settings.method == "lora"
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    return checkpoint.Delta(
        method=settings.method,
        base=name if checkpoint.is_remote(name) else Path(name).name,
        digest=checkpoint.digest_base(flat, models.family_of(model_config)),
        rank=settings.rank if lora else 0,
        alpha=float(settings.alpha) if lora else 0.0,
        layers=tuple(settings.layers) if lora else (),
        representation_size=getattr(model_config, "representation_size", None) or 0,
    )


def to_save(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a training state that must be saved to resume the run."""
    return {name: value for name, value in state.items() if name != FROZEN}


def frozen_part(state: Mapping[str, Any]) -> tuple[models.Params, ...]:
    """Returns the last argument of an evaluation step: the rest of the model, or none if the state has all of it.

    An argument that is left out and one that is None would be two programs.
    """
    return (state[FROZEN],) if FROZEN in state else ()


def _divide(tree: models.Params, is_first: Any) -> tuple[models.Params, models.Params]:
    flat: dict[str, Any] = flatten_dict(tree, sep="/")
    first = {name: leaf for name, leaf in flat.items() if is_first(name)}
    second = {name: leaf for name, leaf in flat.items() if name not in first}
    return unflatten_dict(first, sep="/"), unflatten_dict(second, sep="/")


def _join(tree: models.Params, *others: models.Params) -> models.Params:
    if not any(others):
        return tree
    flat: dict[Any, Any] = {}
    for part in (tree, *others):
        flat |= flatten_dict(part)
    return unflatten_dict(flat)
