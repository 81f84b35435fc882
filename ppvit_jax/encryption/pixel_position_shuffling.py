"""Block scrambling and pixel position shuffling: Qi, MaungMaung, Kinoshita and Kiya, the paper's [10].

Blocks change places; inside each block, divided into four sub-blocks, pixels change places with their three channels
together. Source: the beginning of the method's text, which ends before the shuffling; which sub-blocks share a
permutation is inferred.
"""

import dataclasses

import numpy as np

from ppvit_jax.encryption.blockwise import BlockWise
from ppvit_jax.encryption.method import Randomness, check_choice
from ppvit_jax.encryption.permutations import Permutations, split_blocks
from ppvit_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelPositionShuffling(BlockWise):
    """A reconstruction.

    sub_block: "half" of the block's side, or the "whole" block.
    shared: a permutation of positions for "all" sub-blocks; for each sub-block, the same in all "blocks"; or "none"
      shared, which a model cannot absorb.
    """

    sub_block: str = "half"
    shared: str = "all"
    name = "bs+pps"
    title = "Block scrambling + pixel position shuffling"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "sub_block", self.sub_block, ("half", "whole"))
        check_choice(self.name, "shared", self.shared, ("all", "blocks", "none"))
        if self.sub_block == "half" and self.block_size % 2:
            raise UserError(f"blocks of {self.block_size} cannot be halved: use {self.name}:sub_block=whole")

    def permutations(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        blocks, values = self.count(height, width)
        side = self.block_size // 2 if self.sub_block == "half" else self.block_size
        # [sub-blocks, positions, 3]: where the values of a block lie.
        block = np.arange(values).reshape(self.block_size, self.block_size, 3)
        places = split_blocks(block, side).reshape(-1, side * side, 3)

        def shuffle(orders: list[np.ndarray]) -> np.ndarray:
            pixel = np.empty(values, np.int32)
            for sub_block, order in zip(places, orders, strict=True):
                pixel[sub_block] = sub_block[order]
            return pixel

        def draw(label: str, count: int) -> list[np.ndarray]:
            return [randomness.permutation(f"bs+pps/position{label}/{n}", side * side) for n in range(count)]

        scrambled = randomness.permutation("bs+pps/block", blocks)
        if self.shared == "all":
            return Permutations(scrambled, shuffle(draw("", 1) * len(places)))
        if self.shared == "blocks":
            return Permutations(scrambled, shuffle(draw("", len(places))))
        pixels = [shuffle(draw(f"/{number}", len(places))) for number in range(blocks)]
        return Permutations(scrambled, np.stack(pixels))
