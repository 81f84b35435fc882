"""Restricted random permutations: block scrambling and pixel shuffling that leave some blocks and values in place.

Source: arXiv 2408.08529, by the public code of third parties. The blocks and values that stay are drawn at random; the
others undergo a derangement, a permutation that moves every element.
"""

import dataclasses

import numpy as np

from ppvit_jax.encryption.blockwise import BlockWise
from ppvit_jax.encryption.method import Randomness
from ppvit_jax.encryption.permutations import Permutations
from ppvit_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestrictedPermutations(BlockWise):
    """Permutes some blocks, and some of the values inside them.

    The authors train without adapting the model. A model can absorb this encryption as it absorbs bs+ps.

    Attributes:
      fixed_blocks: number of blocks in an image that stay; -1 for the published share, 120 of 196.
      fixed_pixels: number of values in a block that stay; -1 for the published share, 500 of 768.
    """

    fixed_blocks: int = -1
    fixed_pixels: int = -1
    name = "restricted"
    title = "Restricted random permutations"
    moves_blocks = True

    def permutations(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        blocks, values = self.count(height, width)
        fixed_blocks, fixed_pixels = self.count_fixed(blocks, values)
        return Permutations(
            block=_restricted(randomness, "block", blocks, fixed_blocks),
            pixel=_restricted(randomness, "pixel", values, fixed_pixels),
        )

    def count_fixed(self, blocks: int, values: int) -> tuple[int, int]:
        """Returns the number of blocks in an image and the number of values in a block that stay."""
        # A single block cannot move: it stays.
        published = blocks * 120 // 196 if blocks > 2 else blocks, values * 500 // 768
        return (
            published[0] if self.fixed_blocks == -1 else self.fixed_blocks,
            published[1] if self.fixed_pixels == -1 else self.fixed_pixels,
        )


def _restricted(randomness: Randomness, name: str, length: int, fixed: int) -> np.ndarray:
    """Returns a permutation, int32 [length], that keeps `fixed` places; `name` is "block" or "pixel"."""
    if not 0 <= fixed <= length or fixed == length - 1:
        raise UserError(
            f"encryption restricted: of {length} {'blocks' if name == 'block' else 'values'}, {fixed} cannot stay "
            f"while each of the others moves: set fixed_{name}s to {length}"
            + (f" or to a number from 0 to {length - 2}" if length > 1 else "")
        )
    moving = np.sort(randomness.permutation(f"restricted/{name}/{fixed}", length)[fixed:])
    attempt = 0
    while True:
        # A random permutation is a derangement with probability about 1/e.
        order = randomness.permutation(f"restricted/{name}/{fixed}/{attempt}", len(moving))
        if not (order == np.arange(len(moving))).any():
            break
        attempt += 1
    result = np.arange(length, dtype=np.int32)
    result[moving] = moving[order]
    return result
