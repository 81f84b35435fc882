"""Encryptions that move the values of an image and invert some: one gather and one exclusive or."""

from typing import Any

import numpy as np

from ppvit_jax.encryption.method import Encryption, Randomness, Secret
from ppvit_jax.encryption.permutations import Permutations, apply_index, check_size, gather_index, gather_mask
from ppvit_jax.errors import UserError


class Gather(Encryption):
    """An encryption whose secret is {"index": int32 [values]}, and {"mask": uint8 [values]} if it inverts any."""

    def encrypt(self, images: Any, secret: Secret, numbers: Any = None) -> Any:
        return apply_index(images, secret["index"], secret.get("mask"))

    def undo(self, secret: Secret) -> Secret:
        return undo(secret)


class BlockWise(Gather):
    """An encryption that is the `Permutations` of a key."""

    def permutations(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        """The secret block by block; see `derive` for arguments and errors."""
        raise NotImplementedError

    @property
    def program(self) -> Encryption:
        return Gather(block_size=1)

    def derive(self, randomness: Randomness, *, height: int, width: int) -> Secret:
        return gather(self.permutations(randomness, height=height, width=width), height, width, self.block_size)

    def absorb(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        permutations = self.permutations(randomness, height=height, width=width)
        if not permutations.alike:
            raise UserError(
                f"a model cannot be adapted to {self.spec}: what it does inside a block differs from block to block, "
                "and a patch embedding is the same for all of them"
            )
        return permutations

    def count(self, height: int, width: int) -> tuple[int, int]:
        """Blocks of an image, and values of a block."""
        check_size(height, width, self.block_size)
        return (height // self.block_size) * (width // self.block_size), self.block_size**2 * 3


def gather(permutations: Permutations, height: int, width: int, patch_size: int) -> Secret:
    """The secret of `Gather` from block-wise permutations.

    Raises:
      UserError: sides that are not multiples of the block size, or permutations of other sizes.
    """
    index = gather_index(permutations, height=height, width=width, patch_size=patch_size)
    mask = gather_mask(permutations, height=height, width=width, patch_size=patch_size)
    return {"index": index} if mask is None else {"index": index, "mask": mask}


def undo(secret: Secret) -> Secret:
    """The secret of the inverse, where it is an "index" and perhaps a "mask"; of the same dtypes."""
    back = secret["index"].argsort().astype(secret["index"].dtype)
    return {"index": back} if "mask" not in secret else {"index": back, "mask": secret["mask"][back]}


def mostly_half(permutation: np.ndarray) -> np.ndarray:
    """bool [n]: `permutation > n / 2`, as the public code of these methods draws what to invert (n / 2 - 1 of n)."""
    return permutation > len(permutation) / 2
