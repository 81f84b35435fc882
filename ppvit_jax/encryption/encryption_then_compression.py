"""Encryption-then-compression (EtC): AprilPyone and Kiya, the paper's [9].

The blocks are permuted; each block is rotated and flipped, perhaps inverted, and its channels are permuted. Sources:
an outline by Chuman for the order of the steps, one by Hamano, Imaizumi and Kiya for the sub-blocks, and Madono's
public code (`archive/etc_encryption.py`) for the `published` and `in_place` channels.
"""

import dataclasses

import numpy as np

from ppvit_jax.encryption.blockwise import BlockWise
from ppvit_jax.encryption.method import Randomness, Secret, check_choice
from ppvit_jax.encryption.permutations import Permutations, join_blocks, split_blocks
from ppvit_jax.encryption.pixel_encryption import CHANNEL_ORDERS
from ppvit_jax.errors import UserError

# The result of each order if the channels are assigned one after another in place: two of three are the same.
IN_PLACE_ORDERS = np.array([(0, 1, 2), (0, 2, 2), (1, 1, 2), (1, 2, 1), (2, 2, 2), (2, 1, 2)], np.int32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncryptionThenCompression(BlockWise):
    """Permutes blocks, then rotates and flips them, inverts them, and permutes their channels, in this order.

    Attributes:
      sub_block_size: side of the sub-blocks in pixels. Sub-blocks are permuted inside their block, and every step but
        the block permutation works on them (Hamano et al.). 0 treats a block as a whole (AprilPyone and Kiya, with
        blocks as large as the model's patches).
      shared: True uses one key inside all blocks, which a model absorbs exactly (the choice of Hamano et al., inferred
        from their outline). False, the default, uses a key for each block.
      rotation: True applies one of the 8 symmetries of a square (rotations by multiples of 90 degrees, with or
        without a flip), drawn uniformly.
      negative_positive: True inverts whole (sub-)blocks, each with probability 1/2.
      channels: "permuted" draws one of the 6 orders uniformly. "published" assigns the channels in place, as Madono's
        public code does; this duplicates a channel for 5 of 6 codes and so destroys information. It also draws the
        other steps as that code does: a (sub-)block is turned by 0 to 3 quarters, then turned upside down, mirrored, or
        neither, each with probability 1/3; and exactly half of the (sub-)blocks are inverted. It serves to compare with
        results published with that code. "legacy" is another name for it. "in_place" assigns the channels in the same
        way, but draws the other steps like "permuted"; former versions called this draw "legacy". "none" leaves the
        channels alone.
    """

    sub_block_size: int = 0
    shared: bool = False
    rotation: bool = True
    negative_positive: bool = True
    channels: str = "permuted"
    name = "etc"
    title = "Encryption-then-compression (EtC)"
    moves_blocks = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "channels", self.channels, ("permuted", "published", "legacy", "in_place", "none"))
        if self.channels == "legacy":
            # The record says "published", so that it differs from that of images with the former draw.
            object.__setattr__(self, "channels", "published")
        if self.sub_block_size < 0 or (self.sub_block_size and self.block_size % self.sub_block_size):
            raise UserError(
                f"encryption etc: sub-blocks of {self.sub_block_size} do not divide blocks of {self.block_size}"
            )

    @property
    def inverts(self) -> bool:
        return self.negative_positive

    @property
    def loses_channels(self) -> bool:
        """True if the channels are assigned in place, which destroys information."""
        return self.channels in ("published", "in_place")

    def permutations(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        blocks, values = self.count(height, width)
        side = self.sub_block_size or self.block_size
        sub_blocks = (self.block_size // side) ** 2
        # Shared keys are drawn for one block; otherwise every block has its own.
        keyed = 1 if self.shared else blocks
        inside = split_blocks(np.arange(values, dtype=np.int32).reshape(self.block_size, self.block_size, 3), side)
        inside = np.tile(inside.reshape(1, sub_blocks, side, side, 3), (keyed, 1, 1, 1, 1))
        if sub_blocks > 1:
            orders = [randomness.permutation(f"etc/sub-block/{number}", sub_blocks) for number in range(keyed)]
            inside = np.stack([block[order] for block, order in zip(inside, orders, strict=True)])
        inside = inside.reshape(keyed * sub_blocks, side, side, 3)
        if self.rotation:
            codes = self._turns(randomness, keyed * sub_blocks)
            inside = np.stack([_turn(block, code) for block, code in zip(inside, codes, strict=True)])
        if self.channels != "none":
            channels = IN_PLACE_ORDERS if self.loses_channels else CHANNEL_ORDERS
            codes = randomness.integers("etc/channels", keyed * sub_blocks, len(channels))
            inside = np.take_along_axis(inside, channels[codes][:, None, None, :], axis=3)

        def join(array: np.ndarray) -> np.ndarray:
            """Joins sub-blocks into the values of blocks: [values] if shared, else [blocks, values]."""
            joined = join_blocks(array.reshape(keyed, sub_blocks, -1), self.block_size, self.block_size, side)
            return joined.reshape(-1) if self.shared else joined.reshape(keyed, values)

        moved = sub_blocks > 1 or self.rotation or self.channels != "none"
        inverted = np.repeat(self._inverted(randomness, keyed * sub_blocks), side * side * 3)
        return Permutations(
            block=randomness.permutation("etc/block", blocks),
            pixel=join(inside) if moved else None,
            negative=join(inverted) if self.negative_positive else None,
        )

    def undo(self, secret: Secret) -> Secret:
        if self.loses_channels:
            raise UserError(
                f"encryption {self.spec} cannot be undone: the {self.channels} channels destroy information"
            )
        return super().undo(secret)

    def absorb(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        if self.loses_channels:
            raise UserError(
                f"a model cannot be adapted to {self.spec}: the {self.channels} channels destroy information that it "
                "needs; use channels=permuted"
            )
        return super().absorb(randomness, height=height, width=width)

    def _turns(self, randomness: Randomness, count: int) -> np.ndarray:
        """Draws the codes of `_turn`: int [count]."""
        if self.channels != "published":
            return randomness.integers("etc/rotation", count, 8)
        quarters = randomness.integers("etc/quarters", count, 4)
        flips = randomness.integers("etc/flip", count, 3)
        # To turn a square upside down is to turn it by two quarters, and to mirror it.
        return (quarters + 2 * (flips == 1)) % 4 + 4 * (flips > 0)

    def _inverted(self, randomness: Randomness, count: int) -> np.ndarray:
        """Draws the (sub-)blocks to invert: bool [count]."""
        if self.channels != "published":
            return randomness.bits("etc/negative", count)
        return randomness.permutation("etc/half", count) < count // 2


def _turn(block: np.ndarray, code: int) -> np.ndarray:
    """Applies one of the 8 symmetries of a square: `code % 4` quarter turns, then a horizontal flip from code 4 on."""
    turned = np.rot90(block, code % 4)
    return turned[:, ::-1] if code >= 4 else turned
