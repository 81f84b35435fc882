"""Permutations of the blocks in an image and of the values in a block, and the layout of blocks."""

import dataclasses
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ppvit_jax.errors import UserError

if TYPE_CHECKING:
    import jax

# A numpy or JAX array. This package imports neither JAX nor chex: an array brings its own namespace.
Array = TypeVar("Array", np.ndarray, "jax.Array")


@dataclasses.dataclass(frozen=True, eq=False)
class Permutations:
    """Secret of a block-wise encryption; a field is None if the encryption does not use it.

    With i a block and j a value in it, `encrypted[i, j] = plain[block[i], pixel[j]]`, and 255 minus that if
    `negative[j]`.

    Attributes:
      block: int [blocks], a permutation of the blocks of an image in row-major order.
      pixel: int [values], a permutation of the block_size * block_size * 3 values of a block in (row, column, channel)
        order, the same for all blocks; or int [blocks, values], one for each encrypted block.
      negative: bool [values] or [blocks, values], True for inverted values, likewise.
    """

    block: np.ndarray | None = None
    pixel: np.ndarray | None = None
    negative: np.ndarray | None = None

    @property
    def alike(self) -> bool:
        """True if all blocks are treated alike apart from their order, so that one shared kernel can absorb it.

        A kernel of its own for each position absorbs other permutations too; no model here has such kernels.
        """
        return all(array is None or array.ndim == 1 for array in (self.pixel, self.negative))

    def inverse(self) -> "Permutations":
        """Returns the permutations that undo these."""
        block = None if self.block is None else np.argsort(self.block).astype(np.int32)

        def reorder(array: np.ndarray | None) -> np.ndarray | None:
            """Orders rows by plain block instead of encrypted block."""
            return array if array is None or array.ndim == 1 or block is None else array[block]

        pixel, negative = reorder(self.pixel), reorder(self.negative)
        if pixel is None:
            return Permutations(block, None, negative)
        back = np.argsort(pixel, axis=-1).astype(np.int32)
        if negative is not None:
            negative = np.take_along_axis(*np.broadcast_arrays(negative, back), axis=-1)
        return Permutations(block, back, negative)


def split_blocks(images: Array, block_size: int) -> Array:
    """Splits [..., height, width, channels] into [..., blocks, block_size * block_size * channels], in row-major order.

    Raises:
      UserError: the image's sides are not multiples of the block size.
    """
    *batch, height, width, channels = images.shape
    check_size(height, width, block_size)
    rows, columns = height // block_size, width // block_size
    shape = (*batch, rows, block_size, columns, block_size, channels)
    xp = images.__array_namespace__()
    return xp.swapaxes(images.reshape(shape), -4, -3).reshape(*batch, rows * columns, block_size**2 * channels)


def join_blocks(blocks: Array, height: int, width: int, block_size: int) -> Array:
    """Inverts `split_blocks`: [..., blocks, values] to [..., height, width, channels]."""
    *batch, _, values = blocks.shape
    channels = values // block_size**2
    shape = (*batch, height // block_size, width // block_size, block_size, block_size, channels)
    xp = blocks.__array_namespace__()
    return xp.swapaxes(blocks.reshape(shape), -4, -3).reshape(*batch, height, width, channels)


def check_size(height: int, width: int, block_size: int) -> None:
    """Raises UserError unless the image's sides are multiples of the block size."""
    if block_size <= 0 or height % block_size or width % block_size or height <= 0 or width <= 0:
        raise UserError(
            f"an image of {height}x{width} does not divide into blocks of {block_size}x{block_size}: "
            "resize it to multiples of the block size"
        )
