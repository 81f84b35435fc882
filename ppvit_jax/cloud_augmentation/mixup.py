"""Mixup: convex combinations of images and of their labels (arXiv 1710.09412)."""

import dataclasses
from typing import ClassVar

import jax

from ppvit_jax.cloud_augmentation.method import (
    Augmented,
    CloudAugmentation,
    draw_share,
    need_one_key,
    need_whole_values,
    next_examples,
    per_example,
)
from ppvit_jax.errors import Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixup(CloudAugmentation):
    """Mixes each image x with the next one, y: w x + (1 - w) y, and their labels alike.

    The share w is drawn from Beta(alpha, alpha), one for each step.

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

    def apply(self, batch: Augmented, rng: jax.Array, patch_size: int) -> Augmented:
        shares = draw_share(rng, self.alpha, len(batch.images))
        return batch._replace(images=mix(batch.images, next_examples(batch.images), shares), shares=shares)


def mix(images: jax.Array, others: jax.Array, shares: jax.Array) -> jax.Array:
    """Returns w x + (1 - w) y.

    Args:
      images, others: x and y, floating point [batch, height, width, 3].
      shares: w, floating point [batch].
    """
    w = per_example(shares, images)
    return w * images + (1 - w) * others
