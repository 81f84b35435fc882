"""Block scrambling: permutes the blocks of an image (the paper's equation 2)."""

import dataclasses

from ppvit_jax.encryption.blockwise import BlockWise
from ppvit_jax.encryption.method import Randomness
from ppvit_jax.encryption.permutations import Permutations


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockScrambling(BlockWise):
    """Permutes the blocks of an image. The position embedding absorbs it: the paper's equation 18."""

    name = "bs"
    title = "Block scrambling"
    moves_blocks = True

    def permutations(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        return Permutations(block=randomness.permutation("block", self.count(height, width)[0]))
