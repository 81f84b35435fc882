"""Encryptions of images by keyed permutations: pure functions on numpy and JAX arrays."""

from typing import Any

from ppvit_jax.encryption.permutations import (
    ENCRYPTIONS,
    Permutations,
    apply_index,
    gather_index,
    permutations_needed,
    permute,
)


def encrypt(images: Any, permutations: Permutations, patch_size: int) -> Any:
    """Block scrambling and pixel shuffling, whichever `permutations` holds, fused into one gather.

    Args:
      images: numpy or JAX array [..., height, width, channels], uint8 or floating point.
      permutations: see `Permutations`.
      patch_size: side of a block in pixels.

    Returns:
      An array like `images`.

    Raises:
      UserError: sides that are not multiples of `patch_size`, or permutations of other sizes.
    """
    return permute(images, permutations, patch_size)


def decrypt(images: Any, permutations: Permutations, patch_size: int) -> Any:
    """The inverse of `encrypt`, with the same arguments and errors."""
    return permute(images, permutations.inverse(), patch_size)


__all__ = [
    "ENCRYPTIONS",
    "Permutations",
    "apply_index",
    "decrypt",
    "encrypt",
    "gather_index",
    "permutations_needed",
]
