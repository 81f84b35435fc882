"""Block scrambling, pixel shuffling and negative-positive transform: Qi, MaungMaung and Kiya, the paper's [23].

Source: an outline of arXiv 2208.02556. There is no public code; we inferred that all blocks share one key.
"""

import dataclasses

import numpy as np

from ppvit_jax.encryption.blockwise import BlockWise, mostly_half
from ppvit_jax.encryption.method import Randomness
from ppvit_jax.encryption.permutations import Permutations


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockPixelNegativePositive(BlockWise):
    """Scrambles blocks, then shuffles and inverts values inside each block (a reconstruction).

    Attributes:
      shared: True uses one pixel permutation and one inversion mask for all blocks, which a model can absorb; False
        draws new ones for each block.
    """

    shared: bool = True
    name = "bs+ps+np"
    title = "Block scrambling + pixel shuffling + negative-positive transform"
    moves_blocks = True

    @property
    def inverts(self) -> bool:
        return True

    def permutations(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        blocks, values = self.count(height, width)
        block = randomness.permutation("bs+ps+np/block", blocks)
        if self.shared:
            pixel = randomness.permutation("bs+ps+np/pixel", values)
            return Permutations(block, pixel, mostly_half(randomness.permutation("bs+ps+np/mask", values)))
        pixels = [randomness.permutation(f"bs+ps+np/pixel/{number}", values) for number in range(blocks)]
        masks = [randomness.permutation(f"bs+ps+np/mask/{number}", values) for number in range(blocks)]
        return Permutations(block, np.stack(pixels), np.stack([mostly_half(mask) for mask in masks]))
