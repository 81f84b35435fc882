"""Models as pure functions on dict pytrees, whatever their family."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Params = dict[str, Any]
Statistics = dict[str, Any]


class ModelConfig(Protocol):
    """The shape of a model of any family: a frozen dataclass, so that equal shapes share a compilation."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels: of the blocks that an encryption can share with it; 0 for none."""
        ...

    @property
    def image_size(self) -> int:
        """Side of an image in pixels."""
        ...

    @property
    def num_classes(self) -> int:
        """Outputs of the head."""
        ...

    @property
    def dtype(self) -> str:
        """Compute dtype; the parameters keep theirs."""
        ...


class TrainOutput(NamedTuple):
    """Result of a model that is being trained.

    logits: [batch, num_classes].
    statistics: those of the next step.
    penalty: a scalar to add to the loss; 0 for most families.
    """

    logits: jax.Array
    statistics: Statistics
    penalty: jax.Array


@dataclasses.dataclass(frozen=True)
class Model:
    """A model as pure functions.

    init(rng) -> params.
    init_statistics(rng) -> statistics: what training moves without a gradient, such as a batch normalization's
      running mean; {} for a Vision Transformer.
    apply(params, images, statistics) -> logits, in evaluation mode.
    train(params, statistics, images, rng) -> TrainOutput, in training mode.

    `images` is [batch, image_size, image_size, 3], normalized, floating point; `logits` is
    [batch, num_classes] in float32 (float64 if the compute dtype is float64).
    """

    config: ModelConfig
    init: Callable[[jax.Array], Params]
    init_statistics: Callable[[jax.Array], Statistics]
    apply: Callable[..., jax.Array]
    train: Callable[[Params, Statistics, jax.Array, jax.Array], TrainOutput]


def leaf(params: Mapping[str, Any], name: str) -> Any:
    """Returns a parameter by its name, such as "Transformer/encoder_norm/bias"; None if there is none of that name.

    Args:
      params: a nested tree, or arrays by their full names.
      name: the path in the tree, joined by "/"; "" is the name of no parameter.
    """
    if name in params:
        return params[name]
    branch, _, rest = name.partition("/")
    tree = params.get(branch)
    return leaf(tree, rest) if rest and isinstance(tree, Mapping) else None


def replace_leaf(params: Params, name: str, value: Any) -> Params:
    """Returns a nested tree with another value under a name; it shares the other leaves, and `params` stays."""
    branch, _, rest = name.partition("/")
    return {**params, branch: replace_leaf(params[branch], rest, value) if rest else value}


def from_linen(config: ModelConfig, module: nn.Module, input_shape: tuple[int, ...]) -> Model:
    """Returns the functions of a Linen module.

    Args:
      config: the model's shape.
      module: its `__call__(images, train)` gives logits. It keeps statistics in the collection "statistics",
        sows penalties, already weighted, into "penalties", and draws from the stream "random" when it trains.
      input_shape: of one example.
    """

    def variables(rng: jax.Array) -> dict[str, Any]:
        images = jnp.zeros((1, *input_shape), jnp.float32)
        return dict(module.init({"params": rng}, images, train=False))

    def init(rng: jax.Array) -> Params:
        return dict(variables(rng)["params"])

    def init_statistics(rng: jax.Array) -> Statistics:
        return dict(variables(rng).get("statistics", {}))

    def apply(params: Params, images: jax.Array | np.ndarray, statistics: Statistics | None = None) -> jax.Array:
        chex.assert_shape(images, (None, *input_shape))
        collections = {"params": params, "statistics": statistics or {}}
        return module.apply(collections, images, train=False)  # pyright: ignore[reportReturnType]

    def train(params: Params, statistics: Statistics, images: jax.Array, rng: jax.Array) -> TrainOutput:
        chex.assert_shape(images, (None, *input_shape))
        result: Any = module.apply(
            {"params": params, "statistics": statistics},
            images,
            train=True,
            mutable=["statistics", "penalties"],
            rngs={"random": rng},
        )
        logits, changed = result
        penalty = sum(jax.tree.leaves(changed.get("penalties", {})), jnp.zeros((), jnp.float32))
        return TrainOutput(logits, dict(changed.get("statistics", {})), penalty)

    return Model(config, init, init_statistics, apply, train)
