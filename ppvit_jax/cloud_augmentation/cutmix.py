"""CutMix in whole blocks: some patches of an image are replaced by those of another (after arXiv 1905.04899)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from ppvit_jax.cloud_augmentation.method import (
    Augmented,
    CloudAugmentation,
    count_blocks,
    draw_set,
    draw_share,
    need_one_key,
    need_whole_patches,
    next_examples,
)
from ppvit_jax.errors import Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutMix(CloudAugmentation):
    """Replaces a random set of patches by those at the same places of the next image, and mixes labels by area.

    The published method replaces a rectangle. Scrambled blocks have no rectangles: a set of patches that is a rectangle
    in the encrypted image is scattered in the plain one. The set here is uniformly random among all sets of its size,
    so its distribution is the same under every permutation of the blocks. The share of replaced patches is 1 - w with w
    from Beta(alpha, alpha), rounded to whole patches, and the same for all images of a step.

    Attributes:
      alpha: parameter of the beta distribution; 1 makes all shares equally likely.
    """

    alpha: float = 1.0
    name = "cutmix"
    ranges: ClassVar[dict[str, Range]] = {"alpha": Range(above=0, most=100)}
    needs = (need_whole_patches, need_one_key)
    mixes = True
    draws_blocks = True

    def apply(self, batch: Augmented, rng: jax.Array, patch_size: int) -> Augmented:
        count, blocks = len(batch.images), count_blocks(batch.images, patch_size)
        share_rng, set_rng = jax.random.split(rng)
        shares = draw_share(share_rng, self.alpha, count)
        taken = draw_set(set_rng, jnp.round((1 - shares) * blocks), blocks)
        images = exchange(batch.images, next_examples(batch.images), taken, patch_size)
        return batch._replace(images=images, shares=1 - taken.mean(1, dtype=jnp.float32))


def exchange(images: jax.Array, others: jax.Array, taken: jax.Array, patch_size: int) -> jax.Array:
    """Replaces patches of images by those of others.

    Args:
      images, others: [batch, height, width, 3].
      taken: bool [batch, blocks], True for the patches to take from `others`; patches are in row-major order.
      patch_size: side of a patch in pixels.
    """
    batch, height, width, channels = images.shape
    rows, columns = height // patch_size, width // patch_size
    grid = (batch, rows, patch_size, columns, patch_size, channels)
    mask = taken.reshape(batch, rows, 1, columns, 1, 1)
    return jnp.where(mask, others.reshape(grid), images.reshape(grid)).reshape(images.shape)
