"""Mixup: convex combinations of images and of their labels (arXiv 1710.09412)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from ppvit_jax.cloud_augmentation.method import (
    CloudAugmentation,
    Examples,
    need_one_key,
    need_whole_values,
    next_examples,
    per_example,
)
from ppvit_jax.errors import Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixup(CloudAugmentation):
    """Mixes each image x with the next one, y: w x + (1 - w) y with w from Beta(alpha, alpha), and their labels alike.

    It is linear, so it commutes exactly with every encryption that moves whole values with one key, inverted or not:
    w (255 - x) + (1 - w) (255 - y) = 255 - (w x + (1 - w) y).

    Attributes:
      alpha: parameter of the beta distribution; the smaller, the closer is a mixture to one of its images.
    """

    alpha: float = 0.2
    name = "mixup"
    ranges: ClassVar[dict[str, Range]] = {"alpha": Range(above=0, most=100)}
    needs = (need_whole_values, need_one_key)
    computes = True
    mixes = True

    def apply(self, examples: Examples, rng: jax.Array, patch_size: int) -> Examples:
        weights = jax.random.beta(rng, self.alpha, self.alpha, (len(examples.images),), jnp.float32)
        return mix(examples, next_examples(examples), weights)


def mix(examples: Examples, others: Examples, weights: jax.Array) -> Examples:
    """Returns w x + (1 - w) y of images and targets.

    Args:
      examples, others: the examples x and y, with floating-point images.
      weights: w, floating point [batch].
    """

    def combine(x: jax.Array, y: jax.Array) -> jax.Array:
        w = per_example(weights, x)
        return w * x + (1 - w) * y

    return examples._replace(
        images=combine(examples.images, others.images), targets=combine(examples.targets, others.targets)
    )
