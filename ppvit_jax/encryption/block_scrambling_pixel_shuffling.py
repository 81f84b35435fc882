"""Block scrambling and pixel shuffling: the encryption that the paper proposes with its adaptation (section III-B)."""

import dataclasses

from ppvit_jax.encryption.blockwise import BlockWise
from ppvit_jax.encryption.method import Randomness
from ppvit_jax.encryption.permutations import Permutations


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockScramblingPixelShuffling(BlockWise):
    """Permutes blocks, and the values inside them.

    The position embedding absorbs the first (the paper's equation 18), the patch embedding the second (equation 19).
    """

    name = "bs+ps"
    title = "Block scrambling + pixel shuffling"
    moves_blocks = True

    def permutations(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        blocks, values = self.count(height, width)
        return Permutations(
            block=randomness.permutation("block", blocks), pixel=randomness.permutation("pixel", values)
        )
