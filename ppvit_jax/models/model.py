"""Models of every family as pure functions on dict pytrees."""

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
    """Shape of a model of any family: a frozen dataclass, so that equal shapes share a compilation."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels, and so of the blocks that an encryption may have; 0 without patches."""
        ...

    @property
    def image_size(self) -> int:
        """Side of an image in pixels."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of outputs of the head."""
        ...

    @property
    def dtype(self) -> str:
        """Compute dtype; the parameters keep theirs."""
        ...


class TrainOutput(NamedTuple):
    """Result of a model in training mode.

    Attributes:
      logits: [batch, num_classes].
      statistics: the statistics for the next step.
      penalty: a scalar to add to the loss; 0 for most families.
    """

    logits: jax.Array
    statistics: Statistics
    penalty: jax.Array


@dataclasses.dataclass(frozen=True)
class Model:
    """Model as pure functions.

    Statistics are arrays that training updates without a gradient, such as the running mean of a batch normalization.
    `images` is [batch, image_size, image_size, 3], normalized, floating point. `logits` is [batch, num_classes] in
    float32 (float64 if the compute dtype is float64).

    Attributes:
      config: the model's shape.
      init: init(rng) -> params.
      init_statistics: init_statistics(rng) -> statistics; {} for a Vision Transformer.
      apply: apply(params, images, statistics) -> logits, in evaluation mode.
      train: train(params, statistics, images, rng, kept=None) -> TrainOutput, in training mode. A Vision Transformer
        drops the patches that are not in `kept`, int32 [batch, tokens]; None keeps all of them.
    """

    config: ModelConfig
    init: Callable[[jax.Array], Params]
    init_statistics: Callable[[jax.Array], Statistics]
    apply: Callable[..., jax.Array]
    train: Callable[..., TrainOutput]


def leaf(params: Mapping[str, Any], name: str) -> Any:
    """Returns a parameter by its name, such as "Transformer/encoder_norm/bias", or None if there is none.

    Args:
      params: a nested tree, or arrays by their full names.
      name: the path in the tree, joined by "/"; no parameter has the name "".
    """
    if name in params:
        return params[name]
    branch, _, rest = name.partition("/")
    tree = params.get(branch)
    return leaf(tree, rest) if rest and isinstance(tree, Mapping) else None


def replace_leaf(params: Params, name: str, value: Any) -> Params:
    """Returns a copy of a nested tree with one leaf replaced. The copy shares all other leaves with `params`."""
    branch, _, rest = name.partition("/")
    return {**params, branch: replace_leaf(params[branch], rest, value) if rest else value}


def from_linen(config: ModelConfig, module: nn.Module, input_shape: tuple[int, ...]) -> Model:
    """Wraps a Linen module as pure functions.

    Args:
      config: the model's shape.
      module: a module whose `__call__(images, train)` returns logits. It keeps statistics in the collection
        "statistics", sows weighted penalties into "penalties", and in training draws from the stream "random". A module
        that can drop patches takes `kept` as well.
      input_shape: shape of one example.
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

    def train(
        params: Params, statistics: Statistics, images: jax.Array, rng: jax.Array, kept: jax.Array | None = None
    ) -> TrainOutput:
        chex.assert_shape(images, (None, *input_shape))
        arguments: Any = {} if kept is None else {"kept": kept}
        result: Any = module.apply(
            {"params": params, "statistics": statistics},
            images,
            train=True,
            **arguments,
            mutable=["statistics", "penalties"],
            rngs={"random": rng},
        )
        logits, changed = result
        penalty = sum(jax.tree.leaves(changed.get("penalties", {})), jnp.zeros((), jnp.float32))
        return TrainOutput(logits, dict(changed.get("statistics", {})), penalty)

    return Model(config, init, init_statistics, apply, train)
