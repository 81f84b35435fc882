"""Restricted random permutations: block scrambling and pixel shuffling in which some blocks and values stay.

Source: arXiv 2408.08529, by public code of third parties: the blocks and values that stay are drawn, and the rest is
deranged, so that each of it moves.
"""

import dataclasses

import numpy as np

from ppvit_jax.encryption.blockwise import BlockWise
from ppvit_jax.encryption.method import Randomness
from ppvit_jax.encryption.permutations import Permutations
from ppvit_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestrictedPermutations(BlockWise):
    """Trained without adaptation where it was published; absorbed as bs+ps is.

    fixed_blocks: blocks of an image that stay; -1 for the published share, 120 of 196.
    fixed_pixels: values of a block that stay; -1 for the published share, 500 of 768.
    """

    fixed_blocks: int = -1
    fixed_pixels: int = -1
    name = "restricted"
    title = "Restricted random permutations"

    def permutations(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        blocks, values = self.count(height, width)
        fixed_blocks, fixed_pixels = self.count_fixed(blocks, values)
        return Permutations(
            block=_restricted(randomness, "block", blocks, fixed_blocks),
            pixel=_restricted(randomness, "pixel", values, fixed_pixels),
        )

    def count_fixed(self, blocks: int, values: int) -> tuple[int, int]:
        """Counts how many of the blocks of an image, and of the values of a block, stay."""
        # A single block cannot move: it stays.
        published = blocks * 120 // 196 if blocks > 2 else blocks, values * 500 // 768
        return (
            published[0] if self.fixed_blocks == -1 else self.fixed_blocks,
            published[1] if self.fixed_pixels == -1 else self.fixed_pixels,
        )


def _restricted(randomness: Randomness, name: str, length: int, fixed: int) -> np.ndarray:
    """Returns a permutation, int32 [length], of which `fixed` places stay; `name` is "block" or "pixel"."""
    if not 0 <= fixed <= length or fixed == length - 1:
        raise UserError(
            f"encryption restricted: of {length} {'blocks' if name == 'block' else 'values'}, {fixed} cannot stay "
            f"while each of the others moves: set fixed_{name}s to {length}"
            + (f" or to 0 to {length - 2}" if length > 1 else "")
        )
    moving = np.sort(randomness.permutation(f"restricted/{name}/{fixed}", length)[fixed:])
    attempt = 0
    while True:
        # A permutation leaves nothing in its place with probability 1/e.
        order = randomness.permutation(f"restricted/{name}/{fixed}/{attempt}", len(moving))
        if not (order == np.arange(len(moving))).any():
            break
        attempt += 1
    result = np.arange(length, dtype=np.int32)
    result[moving] = moving[order]
    return result
