"""Random token dropping: training sees a random set of each image's patches (PatchDropout, arXiv 2208.07220)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from ppvit_jax.cloud_augmentation.method import Augmented, CloudAugmentation, count_blocks, draw_set, need_whole_patches
from ppvit_jax.errors import Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenDrop(CloudAugmentation):
    """Leaves a random set of patches out of each image.

    The model drops the tokens after it has added their positions, so a training step also takes less time and memory.
    The set is uniformly random among all sets of its size, so its distribution is the same under every permutation of
    the blocks.

    Attributes:
      rate: share of the patches that are left out. As in the authors' code, int((1 - rate) * patches) are kept, and at
        least 1.
    """

    rate: float = 0.1
    name = "token_drop"
    ranges: ClassVar[dict[str, Range]] = {"rate": Range(above=0, below=1)}
    needs = (need_whole_patches,)
    draws_blocks = True

    def apply(self, batch: Augmented, rng: jax.Array, patch_size: int) -> Augmented:
        count, blocks = len(batch.images), count_blocks(batch.images, patch_size)
        size = max(1, int((1 - self.rate) * blocks))
        kept = draw_set(rng, jnp.full(count, size), blocks)
        return batch._replace(kept=to_indices(kept, size))


def to_indices(kept: jax.Array, size: int) -> jax.Array:
    """Converts sets of patches to ascending numbers of patches.

    Args:
      kept: bool [batch, blocks], with `size` patches in each set.
      size: number of patches in every set.

    Returns:
      int32 [batch, size].
    """
    return jnp.argsort(~kept, axis=1, stable=True)[:, :size].astype(jnp.int32)
