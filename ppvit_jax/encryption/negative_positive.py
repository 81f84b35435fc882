"""Negative-positive transform, block-wise: some values of every block are inverted, the same in all blocks.

Source: MaungMaung and Kiya's block-wise transform, by public code that reimplements it: the mask is
`permutation > n / 2`.
"""

import dataclasses

from ppvit_jax.encryption.blockwise import BlockWise, mostly_half
from ppvit_jax.encryption.method import Randomness
from ppvit_jax.encryption.permutations import Permutations


@dataclasses.dataclass(frozen=True, kw_only=True)
class NegativePositive(BlockWise):
    """x -> 255 - x, a change of sign once images are normalized to [-1, 1]: absorbed by the patch embedding."""

    name = "np"
    title = "Negative-positive transform"

    def permutations(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        values = self.count(height, width)[1]
        return Permutations(negative=mostly_half(randomness.permutation("np/mask", values)))
