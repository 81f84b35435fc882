"""Learnable image encryption (LE): Tanaka, the paper's [6].

Every value of a block is split into its low and its high four bits; these nibbles change places, alike in all blocks,
and some are inverted. Source: public code of Tanaka, of Madono and of Ito, which agree.
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
    """An encryption that permutes and inverts nibbles.

    Its secret is {"index": int32 [nibbles], "mask": uint8 [nibbles], 15 or 0}: an image as blocks in row-major order,
    each as the low nibbles of its values in (row, column, channel) order and then their high ones.
    """

    def encrypt(self, images: Array, secret: Secret, numbers: ArrayLike | None = None) -> Array:
        if images.dtype != np.uint8:
            raise UserError(f"encryption {self.name} is of uint8 images, and not of {images.dtype}")
        xp = images.__array_namespace__()
        index, mask = secret["index"], secret["mask"]
        *batch, height, width, _ = images.shape
        blocks = split_blocks(images, self.block_size)
        nibbles = xp.concatenate([blocks & np.uint8(15), blocks >> np.uint8(4)], axis=-1)
        flat = nibbles.reshape(*batch, math.prod(nibbles.shape[-2:]))
        if flat.shape[-1] != index.shape[0]:
            raise UserError(f"a secret of {index.shape[0]} nibbles does not fit images of {height}x{width}")
        nibbles = (xp.take(flat, index, axis=-1, mode="clip") ^ mask).reshape(nibbles.shape)
        low, high = xp.split(nibbles, 2, axis=-1)
        return join_blocks(low | (high << np.uint8(4)), height, width, self.block_size)

    def undo(self, secret: Secret) -> Secret:
        return undo(secret)

    def absorb(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        raise UserError(
            f"a model cannot be adapted to {self.spec}: it tears the low and high four bits of a value apart, "
            "which is not a linear function of the value"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnableEncryption(Nibbles):
    """Learnable encryption, with one key for all blocks.

    np_key: "shared", as in all public code: the nibbles to invert are those whose key is above the middle, inverted
      before and after they move; so the key has log2((2 * values)!) bits and no more. "independent": inverted once,
      before they move, by bits of their own, as an outline of Chuman's has it.
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
    """Returns the nibbles that change if those above the middle of the key are inverted before and after they move.

    bool [n] of int [n].
    """
    above = mostly_half(key)
    return above ^ above[key]
