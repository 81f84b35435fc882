"""Block-wise negative-positive transform: inverts the same values in every block.

Source: public code that reimplements MaungMaung and Kiya's block-wise transform. The mask is `permutation > n / 2`.
"""

import dataclasses

from ppvit_jax.encryption.blockwise import BlockWise, mostly_half
from ppvit_jax.encryption.method import Randomness
from ppvit_jax.encryption.permutations import Permutations


@dataclasses.dataclass(frozen=True, kw_only=True)
class NegativePositive(BlockWise):
    """Inverts values: x -> 255 - x.

    In images normalized to [-1, 1] this is a change of sign, which the patch embedding absorbs.
    """

    name = "np"
    title = "Negative-positive transform"

    @property
    def inverts(self) -> bool:
        return True

    def permutations(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        values = self.count(height, width)[1]
        return Permutations(negative=mostly_half(randomness.permutation("np/mask", values)))
