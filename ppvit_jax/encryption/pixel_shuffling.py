"""Pixel shuffling: the values of every block change places, across channels, alike in all blocks (equation 15)."""

from typing import Any

import numpy as np

from ppvit_jax.encryption.permutations import Permutations, permute


def encrypt(images: Any, permutation: np.ndarray, patch_size: int) -> Any:
    """Encrypts images.

    Args:
      images: numpy or JAX array [..., height, width, channels], uint8 or floating point.
      permutation: int [patch_size * patch_size * channels], in (row, column, channel) order.
      patch_size: side of a block in pixels.

    Returns:
      An array like `images`.

    Raises:
      UserError: sides that are not multiples of `patch_size`, or a permutation of another size.
    """
    return permute(images, Permutations(pixel=permutation), patch_size)


def decrypt(images: Any, permutation: np.ndarray, patch_size: int) -> Any:
    """The inverse of `encrypt`, with the same arguments and errors."""
    return permute(images, Permutations(pixel=permutation).inverse(), patch_size)
