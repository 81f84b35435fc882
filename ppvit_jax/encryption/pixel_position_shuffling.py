"""Block scrambling and pixel position shuffling: Qi, MaungMaung, Kinoshita and Kiya, the paper's [10].

The blocks are permuted. Each block is divided into four sub-blocks, whose pixels are permuted; a pixel's three channels
stay together. Source (arXiv 2205.12041): the beginning of the text that describes the method, which ends before the
shuffling. We inferred the sub-blocks that share a permutation.
"""

import dataclasses

import numpy as np

from ppvit_jax.encryption.blockwise import BlockWise
from ppvit_jax.encryption.method import Randomness, check_choice
from ppvit_jax.encryption.permutations import Permutations, split_blocks
from ppvit_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelPositionShuffling(BlockWise):
    """Permutes blocks, and the pixels inside their sub-blocks (a reconstruction).

    Attributes:
      sub_block: "half" for sub-blocks with half the block's side, "whole" for one that is the whole block.
      shared: "all" uses one permutation for all sub-blocks. "blocks" uses one for each of a block's sub-blocks, the
        same in all blocks. "none" uses a new one everywhere, which a model cannot absorb.
    """

    sub_block: str = "half"
    shared: str = "all"
    name = "bs+pps"
    title = "Block scrambling + pixel position shuffling"
    moves_blocks = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "sub_block", self.sub_block, ("half", "whole"))
        check_choice(self.name, "shared", self.shared, ("all", "blocks", "none"))
        if self.sub_block == "half" and self.block_size % 2:
            raise UserError(f"blocks of {self.block_size} cannot be halved: use {self.name}:sub_block=whole")

    def permutations(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        blocks, values = self.count(height, width)
        side = self.block_size // 2 if self.sub_block == "half" else self.block_size
        # [sub-blocks, positions, 3]: the places of the values in a block.
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
