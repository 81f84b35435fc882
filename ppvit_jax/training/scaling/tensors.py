"""Tensors of a training step: those of the model, those that are trained, and the place of each in the model."""

import dataclasses
import functools
import math
from collections.abc import Mapping

from ppvit_jax import models
from ppvit_jax.models import ViTConfig
from ppvit_jax.models.low_rank import FACTORS, LAYERS, find_layers
from ppvit_jax.training.devices import split_axis
from ppvit_jax.training.scaling.setup import Setup

# Place of a tensor along the depth of a model; see `place`.
Place = tuple[int, int]
# Layers of a block in their order: queries, keys and values have the same input.
_ORDER = {layer: max(0, number - 2) for number, layer in enumerate(LAYERS)}
Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Tensors:
    """Tensors of a training step, as shapes by name.

    Attributes:
      model: parameters of the model.
      trained: tensors that the optimizer changes: parameters, or low-rank factors and a head.
      averaged: tensors of which `config.ema_decay` keeps an average.
      frozen: parameters that are kept beside these and have no gradient.
      differentiated: parameters of the model that have a gradient. Those with low-rank factors are among them, because
        the gradient of a kernel gives those of its factors.
      adapted: names of the kernels with factors.
      first: place of the first tensor with a gradient; the backward pass ends there.
    """

    model: Shapes
    trained: Shapes
    averaged: Shapes
    frozen: Shapes
    differentiated: Shapes
    adapted: frozenset[str]
    first: Place


def parameter_shapes(config: ViTConfig) -> Shapes:
    """Returns the shapes of a model's parameters on a machine that may lack the kernel that the config names."""
    return models.parameter_shapes(dataclasses.replace(config, attention="xla"))


def find_tensors(config: ViTConfig, setup: Setup) -> Tensors:
    """Divides the tensors of a training step as a run with this setup does.

    Raises:
      UserError: an expression in `setup.tuned_layers` is invalid or matches nothing.
    """
    return _find_tensors(config, setup.tuning, setup.rank, setup.tuned_layers)


@functools.lru_cache(maxsize=32)
def _find_tensors(config: ViTConfig, method: str, rank: int, patterns: tuple[str, ...]) -> Tensors:
    model, family = parameter_shapes(config), models.family_of(config)
    adapted: frozenset[str] = frozenset()
    if method == "full":
        trained = {name: shape for name, shape in model.items() if name not in family.fixed}
        averaged, differentiated = model, trained
    else:
        trained = {name: shape for name, shape in model.items() if name.startswith(family.heads)}
        differentiated = dict(trained)
        if method == "lora":
            for layer, (inputs, outputs) in find_layers(model, patterns).items():
                first, second = (f"{layer}/{factor}" for factor in FACTORS)
                trained |= {first: (inputs, rank), second: (rank, outputs)}
                differentiated[f"{layer}/kernel"] = model[f"{layer}/kernel"]
            adapted = frozenset(differentiated.keys() - trained.keys())
        averaged = trained
    return Tensors(
        model=model,
        trained=trained,
        averaged=averaged,
        frozen={name: shape for name, shape in model.items() if name not in averaged},
        differentiated=differentiated,
        adapted=adapted,
        first=min(place(config, name) for name in differentiated),
    )


def place(config: ViTConfig, name: str) -> Place:
    """Returns the place of a parameter: depth, and number among the layers at this depth.

    The depth is 0 before the blocks, 1 + i in block i, and more after the blocks.
    """
    family = models.family_of(config)
    depth = family.depth(name)
    order = _ORDER.get(own_name(name), 0)
    if depth is not None:
        return depth, order
    # Attention pooling comes first, then other layers, then those that compute the logits.
    after = 2 if name.startswith(family.heads) else 0 if own_name(name) in _ORDER else 1
    return config.layers + 1 + after, order


def own_name(name: str) -> str:
    """Returns the name of a parameter's layer in its block, such as "query"."""
    return name.rpartition("/")[0].rpartition("/")[2]


def is_scaled(config: ViTConfig, name: str) -> bool:
    """Returns True for a kernel that a block multiplies by factors before it rounds the kernel.

    These are the kernels after a normalization, which are multiplied by its scale, and those with LayerScale.
    """
    *to_heads, out, first, last = LAYERS
    scaled = (*to_heads, first, *((out, last) if config.layout.layer_scale else ()))
    return is_kernel(name) and is_in_block(config, name) and own_name(name) in scaled


def is_in_block(config: ViTConfig, name: str) -> bool:
    """Returns True for a parameter of one of the encoder's blocks."""
    return 1 <= place(config, name)[0] <= config.layers


def is_kernel(name: str) -> bool:
    """Returns True for the name of a kernel."""
    return name.endswith("kernel")


def count(shapes: Shapes, devices: int = 1) -> int:
    """Returns the number of values that each device keeps, if every large tensor is split where it can be."""

    def kept(shape: tuple[int, ...]) -> int:
        return math.prod(shape) // (1 if split_axis(shape, devices) is None else devices)

    return sum(map(kept, shapes.values()))
