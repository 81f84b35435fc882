"""Block scrambling: the blocks of an image change places (the paper's equation 2)."""

from typing import Any

import numpy as np

from ppvit_jax.encryption.permutations import Permutations, permute


def encrypt(images: Any, permutation: np.ndarray, patch_size: int) -> Any:
    """Encrypts images.

    Args:
      images: numpy or JAX array [..., height, width, channels], uint8 or floating point.
      permutation: int [blocks], of the blocks in row-major order.
      patch_size: side of a block in pixels.

    Returns:
      An array like `images`.

    Raises:
      UserError: sides that are not multiples of `patch_size`, or a permutation of another size.
    """
    return permute(images, Permutations(block=permutation), patch_size)


def decrypt(images: Any, permutation: np.ndarray, patch_size: int) -> Any:
    """The inverse of `encrypt`, with the same arguments and errors."""
    return permute(images, Permutations(block=permutation).inverse(), patch_size)
