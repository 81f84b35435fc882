"""Learnable image encryption (LE): Tanaka, the paper's [6].

Every value of a block is split into two nibbles, its low and its high four bits. The nibbles are permuted and some are
inverted, in the same way in all blocks. Sources: the public code of Tanaka, of Madono and of Ito, which agree.
"""

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike

from ppvit_jax.encryption.blockwise import mostly_half, undo
from ppvit_jax.encryption.method import Encryption, Randomness, Secret, check_choice
from ppvit_jax.encryption.permutations import Array, Permutations, check_size, join_blocks, split_blocks
from ppvit_jax.errors import UserError


class Nibbles(Encryption):
    """Encryption that permutes and inverts nibbles.

    Its secret is {"index": int32 [nibbles], "mask": uint8 [nibbles], 15 or 0}. The nibbles of an image are in this
    order: blocks in row-major order; in a block, the low nibbles of its values in (row, column, channel) order, then
    the high nibbles.
    """

    def encrypt(self, images: Array, secret: Secret, numbers: ArrayLike | None = None) -> Array:
        if images.dtype != np.uint8:
            raise UserError(f"encryption {self.name} cannot encrypt {images.dtype}: give uint8 images")
        xp = images.__array_namespace__()
        index, mask = secret["index"], secret["mask"]
        *batch, height, width, _ = images.shape
        blocks = split_blocks(images, self.block_size)
        nibbles = xp.concatenate([blocks & np.uint8(15), blocks >> np.uint8(4)], axis=-1)
        flat = nibbles.reshape(*batch, math.prod(nibbles.shape[-2:]))
        if flat.shape[-1] != index.shape[0]:
            raise UserError(
                f"a secret for {index.shape[0]} nibbles does not fit images of {height}x{width}: derive another"
            )
        nibbles = (xp.take(flat, index, axis=-1, mode="clip") ^ mask).reshape(nibbles.shape)
        low, high = xp.split(nibbles, 2, axis=-1)
        return join_blocks(low | (high << np.uint8(4)), height, width, self.block_size)

    def undo(self, secret: Secret) -> Secret:
        return undo(secret)

    def absorb(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        raise UserError(
            f"a model cannot be adapted to {self.spec}: it separates the low and high four bits of a value, "
            "which no linear patch embedding can undo; use an encryption that moves whole values, such as bs+ps"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnableEncryption(Nibbles):
    """Permutes and inverts nibbles, with one key for all blocks.

    Attributes:
      np_key: "shared" inverts the nibbles whose key is above the middle, before and after the permutation, as all
        public code does; the key then has log2((2 * values)!) bits and no more. "independent" inverts nibbles once,
        before the permutation, by separate random bits, as in an outline by Chuman.
    """

    np_key: str = "shared"
    name = "le"
    title = "Learnable image encryption (LE)"
    usual_block_size = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "np_key", self.np_key, ("shared", "independent"))

    def derive(self, randomness: Randomness, *, height: int, width: int) -> Secret:
        check_size(height, width, self.block_size)
        blocks, count = height * width // self.block_size**2, self.block_size**2 * 6
        key = randomness.permutation("le/nibbles", count)
        inverted = invert_twice(key) if self.np_key == "shared" else randomness.bits("le/negative", count)[key]
        index = np.arange(blocks * count, dtype=np.int32).reshape(blocks, count)[:, key]
        return {"index": index.reshape(-1), "mask": np.tile(inverted, blocks).astype(np.uint8) * np.uint8(15)}


def invert_twice(key: np.ndarray) -> np.ndarray:
    """Returns the mask of two inversions, before and after the permutation, of the nibbles above the key's middle.

    Args:
      key: int [n], the permutation.

    Returns:
      bool [n], True for nibbles that end up inverted.
    """
    above = mostly_half(key)
    return above ^ above[key]
