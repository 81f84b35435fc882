"""Brightness: the same number added to every value of an image."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from ppvit_jax.cloud_augmentation.method import (
    Augmented,
    CloudAugmentation,
    need_no_inversion,
    need_whole_values,
    per_example,
)
from ppvit_jax.errors import Range

_WHITE = 255.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Brightness(CloudAugmentation):
    """Adds the same number to every value of an image: x + b, clipped to 0 and 255.

    The number b is uniform between -255 strength and 255 strength, one for each image. The method commutes exactly with
    all encryptions that move whole values and invert none: 255 - (x + b) = (255 - x) - b.

    Attributes:
      strength: largest change, as a share of the range of values.
    """

    strength: float = 0.2
    name = "brightness"
    ranges: ClassVar[dict[str, Range]] = {"strength": Range(above=0, most=1)}
    needs = (need_whole_values, need_no_inversion)
    computes = True

    def apply(self, batch: Augmented, rng: jax.Array, patch_size: int) -> Augmented:
        bound = _WHITE * self.strength
        changes = jax.random.uniform(rng, (len(batch.images),), jnp.float32, minval=-bound, maxval=bound)
        return batch._replace(images=shift(batch.images, changes))


def shift(images: jax.Array, changes: jax.Array) -> jax.Array:
    """Returns x + b, clipped to 0 and 255.

    Args:
      images: x, floating point [batch, height, width, 3], values from 0 to 255.
      changes: b, floating point [batch].
    """
    return jnp.clip(images + per_example(changes, images), 0, _WHITE)
