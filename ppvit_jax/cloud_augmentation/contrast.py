"""Contrast about the middle gray."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from ppvit_jax.cloud_augmentation.method import Augmented, CloudAugmentation, need_whole_values, per_example
from ppvit_jax.errors import Range

_MIDDLE, _WHITE = 127.5, 255.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast(CloudAugmentation):
    """Multiplies the distance of every value from the middle gray: 127.5 + a (x - 127.5), clipped to 0 and 255.

    The factor a is uniform between 1 - strength and 1 + strength, one for each image. Other programs, such as
    torchvision, take the mean of the image in place of the middle gray, which encryption changes. The middle gray is
    its own inverse, so the method commutes exactly with all encryptions that move whole values, inverted or not.

    Attributes:
      strength: largest distance of the factor from 1.
    """

    strength: float = 0.2
    name = "contrast"
    ranges: ClassVar[dict[str, Range]] = {"strength": Range(above=0, most=1)}
    needs = (need_whole_values,)
    computes = True

    def apply(self, batch: Augmented, rng: jax.Array, patch_size: int) -> Augmented:
        factors = jax.random.uniform(
            rng, (len(batch.images),), jnp.float32, minval=1 - self.strength, maxval=1 + self.strength
        )
        return batch._replace(images=scale(batch.images, factors))


def scale(images: jax.Array, factors: jax.Array) -> jax.Array:
    """Returns 127.5 + a (x - 127.5), clipped to 0 and 255.

    Args:
      images: x, floating point [batch, height, width, 3], values from 0 to 255.
      factors: a, floating point [batch].
    """
    return jnp.clip(_MIDDLE + per_example(factors, images) * (images - _MIDDLE), 0, _WHITE)
