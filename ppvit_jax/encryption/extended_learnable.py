"""Extended learnable image encryption (ELE): Madono, Tanaka, Onishi and Ogawa, the paper's [8].

Learnable encryption with a key for each block, then block scrambling. Source: Madono's public code (the folder
`archive` of its repository), in which each key belongs to a block of the plain image. Here the keys derive from the
secret key, not from the files of that code.
"""

import dataclasses

import numpy as np

from ppvit_jax.encryption.learnable import Nibbles, invert_twice
from ppvit_jax.encryption.method import Randomness, Secret
from ppvit_jax.encryption.permutations import check_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtendedLearnableEncryption(Nibbles):
    """Permutes and inverts the nibbles of each block by the block's own key, then permutes the blocks."""

    name = "ele"
    title = "Extended learnable image encryption (ELE)"
    moves_blocks = True
    usual_block_size = 4

    def derive(self, randomness: Randomness, *, height: int, width: int) -> Secret:
        check_size(height, width, self.block_size)
        blocks, count = height * width // self.block_size**2, self.block_size**2 * 6
        keys = np.stack([randomness.permutation(f"ele/nibbles/{block}", count) for block in range(blocks)])
        block = randomness.permutation("ele/block", blocks)
        index = np.arange(blocks * count, dtype=np.int32).reshape(blocks, count)
        index = np.take_along_axis(index, keys, axis=1)[block]
        inverted = np.stack([invert_twice(key) for key in keys])[block]
        return {"index": index.reshape(-1), "mask": inverted.reshape(-1).astype(np.uint8) * np.uint8(15)}
