"""Interface of an augmentation of encrypted images, and the properties that an encryption needs to commute with it.

An augmentation A commutes with an encryption E exactly if E(A(images)) = A(E(images)) for the same random draws. It
commutes in distribution if that holds for other draws of the same distribution. In both cases training on augmented
encrypted images is training on encryptions of augmented images.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppvit_jax.encryption import Encryption
from ppvit_jax.errors import Range

# (encryption, side of the model's patches in pixels) -> the reason that the need is not met, or "" if it is.
Need = Callable[[Encryption, int], str]


class Augmented(NamedTuple):
    """Images of one training step, and facts about them that the step needs.

    Attributes:
      images: [batch, height, width, 3], values from 0 to 255: uint8, or floating point once a method has computed with
        them. Encodings are floating point from the start.
      shares: float32 [batch], the share of each image in its mixture, the rest of which is the next image's; None
        without mixing.
      kept: int32 [batch, tokens], the patches that the model keeps; None for all of them.
    """

    images: jax.Array
    shares: jax.Array | None = None
    kept: jax.Array | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloudAugmentation:
    """Augmentation of encrypted images: a frozen dataclass, whose fields are the options of the method."""

    name: ClassVar[str]
    # Range of each option.
    ranges: ClassVar[dict[str, Range]]
    # Properties of an encryption without which the method does not commute with it.
    needs: ClassVar[tuple[Need, ...]]
    # True if the method computes with values, and does not only move them.
    computes: ClassVar[bool] = False
    # True if the method mixes an image with another one. Where several methods mix, each image draws one of them.
    mixes: ClassVar[bool] = False
    # True if the method draws a set of patches.
    draws_blocks: ClassVar[bool] = False

    def apply(self, batch: Augmented, rng: jax.Array, patch_size: int) -> Augmented:
        """Draws and applies the augmentation.

        Args:
          batch: the images so far.
          rng: random key.
          patch_size: side of the model's patches in pixels.
        """
        raise NotImplementedError


def need_whole_values(encryption: Encryption, patch_size: int) -> str:
    """Needs an encryption that moves whole values, perhaps inverted: it is then affine in the image."""
    return "" if encryption.gathers else "it changes values in a way that is not linear"


def need_no_inversion(encryption: Encryption, patch_size: int) -> str:
    """Needs an encryption that inverts no values."""
    return "it inverts values, and those become darker where the image becomes brighter" if encryption.inverts else ""


def need_one_key(encryption: Encryption, patch_size: int) -> str:
    """Needs an encryption with one key for all images."""
    return "every image has a key of its own, and the mixture would belong to none" if encryption.per_image else ""


def need_whole_patches(encryption: Encryption, patch_size: int) -> str:
    """Needs an encryption that maps patches to patches, each by itself."""
    size = encryption.block_size
    if encryption.depends_on_batch:
        return "an encrypted patch depends on all images of its batch"
    if not encryption.blocks or size == patch_size or (not encryption.moves_blocks and patch_size % size == 0):
        return ""
    return f"its blocks of {size}x{size} tear the model's patches of {patch_size}x{patch_size} apart"


def draw_share(rng: jax.Array, alpha: float, count: int) -> jax.Array:
    """Draws from Beta(alpha, alpha) the share of each image in its mixture: float32 [count], one number for all.

    One number needs no communication between devices. The authors of mixup and CutMix draw one for each step, too.
    """
    return jnp.full(count, jax.random.beta(rng, alpha, alpha, dtype=jnp.float32))


def next_examples(array: jax.Array) -> jax.Array:
    """Returns for each example of [batch, ...] the next one, with which it is mixed; a batch is in random order."""
    return jnp.roll(array, -1, axis=0)


def count_blocks(images: jax.Array, patch_size: int) -> int:
    """Returns the number of patches in each image of [batch, height, width, 3]."""
    return (images.shape[1] // patch_size) * (images.shape[2] // patch_size)


def draw_set(rng: jax.Array, count: jax.Array, blocks: int) -> jax.Array:
    """Draws a uniformly random set of blocks for each image.

    The distribution of the set is the same under every permutation of the blocks. The set of a rectangle would not be.

    Args:
      rng: random key.
      count: int [batch], number of blocks in each set.
      blocks: number of blocks in an image.

    Returns:
      bool [batch, blocks], True for the blocks in the set.
    """
    values = jax.random.uniform(rng, (len(count), blocks), jnp.float32)
    ranks = jnp.argsort(jnp.argsort(values, axis=1), axis=1)
    return ranks < count[:, None]


def per_example(values: jax.Array, like: jax.Array) -> jax.Array:
    """Returns values [batch] in the dtype of an array [batch, ...], with axes that broadcast to it."""
    return values.astype(like.dtype).reshape(-1, *(1,) * (like.ndim - 1))
