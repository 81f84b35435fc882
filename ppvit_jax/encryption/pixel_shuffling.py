"""Pixel shuffling: permutes the values inside every block, across channels, alike in all blocks (equation 15)."""

import dataclasses

from ppvit_jax.encryption.blockwise import BlockWise
from ppvit_jax.encryption.method import Randomness
from ppvit_jax.encryption.permutations import Permutations


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelShuffling(BlockWise):
    """Permutes the values of every block. The patch embedding absorbs it: the paper's equation 19."""

    name = "ps"
    title = "Pixel shuffling"

    def permutations(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        return Permutations(pixel=randomness.permutation("pixel", self.count(height, width)[1]))
