"""Permutations of the values of an image: what a key derives to, and one gather that applies it."""

import dataclasses
import math
from typing import Any

import numpy as np

from ppvit_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Permutations:
    """The secret of a block-wise encryption, each part None where the encryption does not use it.

    Block i of the encrypted image is block `block[i]` of the plain one, and value j in it is that block's value
    `pixel[j]`, as 255 minus itself where `negative[j]`.

    block: int [blocks], of the blocks of an image in row-major order.
    pixel: int [values], of the patch_size * patch_size * 3 values of a block in (row, column, channel) order, alike in
      all blocks; or int [blocks, values], by encrypted block.
    negative: bool [values] or [blocks, values], likewise.
    """

    block: np.ndarray | None = None
    pixel: np.ndarray | None = None
    negative: np.ndarray | None = None

    @property
    def alike(self) -> bool:
        """Whether all blocks are treated alike, but for their places: then a patch embedding can absorb it."""
        return all(part is None or part.ndim == 1 for part in (self.pixel, self.negative))

    def inverse(self) -> "Permutations":
        """The permutations that undo these."""
        block = None if self.block is None else np.argsort(self.block).astype(np.int32)

        def placed(part: np.ndarray | None) -> np.ndarray | None:
            """By plain block instead of encrypted block."""
            return part if part is None or part.ndim == 1 or block is None else part[block]

        pixel, negative = placed(self.pixel), placed(self.negative)
        if pixel is None:
            return Permutations(block, None, negative)
        back = np.argsort(pixel, axis=-1).astype(np.int32)
        if negative is not None:
            negative = np.take_along_axis(*np.broadcast_arrays(negative, back), axis=-1)
        return Permutations(block, back, negative)


def split_blocks(images: Any, block_size: int) -> Any:
    """[..., height, width, channels] -> [..., blocks, block_size * block_size * channels], blocks in row-major order.

    Raises:
      UserError: sides that are not multiples of the block size.
    """
    *batch, height, width, channels = images.shape
    check_size(height, width, block_size)
    rows, columns = height // block_size, width // block_size
    shape = (*batch, rows, block_size, columns, block_size, channels)
    return images.reshape(shape).swapaxes(-4, -3).reshape(*batch, rows * columns, block_size**2 * channels)


def join_blocks(blocks: Any, height: int, width: int, block_size: int) -> Any:
    """The inverse of `split_blocks`."""
    *batch, _, values = blocks.shape
    channels = values // block_size**2
    shape = (*batch, height // block_size, width // block_size, block_size, block_size, channels)
    return blocks.reshape(shape).swapaxes(-4, -3).reshape(*batch, height, width, channels)


def check_size(height: int, width: int, block_size: int) -> None:
    """Raises UserError unless an image divides into blocks."""
    if block_size <= 0 or height % block_size or width % block_size or height <= 0 or width <= 0:
        raise UserError(
            f"an image of {height}x{width} does not divide into blocks of {block_size}x{block_size}: "
            "resize it to multiples of the block size"
        )


def gather_index(
    permutations: Permutations, *, height: int, width: int, patch_size: int, channels: int = 3
) -> np.ndarray:
    """The index of one gather that moves the values of a flattened image: int32 [height * width * channels].

    `encrypted.reshape(-1) = image.reshape(-1)[gather_index]`, up to the inverted values (`gather_mask`). Block
    scrambling and pixel shuffling (the paper's equations 2 and 15) commute where all blocks are treated alike.

    Raises:
      UserError: sides that are not multiples of the block size, or permutations of other sizes.
    """
    check_size(height, width, patch_size)
    image = np.arange(height * width * channels, dtype=np.int32).reshape(height, width, channels)
    index = split_blocks(image, patch_size)
    _check_shapes(permutations, index.shape, f"{height}x{width}", patch_size)
    if permutations.block is not None:
        index = index[permutations.block]
    if permutations.pixel is not None:
        index = np.take_along_axis(index, np.broadcast_to(permutations.pixel, index.shape), axis=1)
    return np.ascontiguousarray(join_blocks(index, height, width, patch_size).reshape(-1))


def gather_mask(
    permutations: Permutations, *, height: int, width: int, patch_size: int, channels: int = 3
) -> np.ndarray | None:
    """Which values of the encrypted image are inverted: uint8 [height * width * channels], 255 or 0; or None.

    Raises:
      UserError: as `gather_index`.
    """
    check_size(height, width, patch_size)
    if permutations.negative is None:
        return None
    shape = (height * width // patch_size**2, patch_size**2 * channels)
    _check_shapes(permutations, shape, f"{height}x{width}", patch_size)
    blocks = np.broadcast_to(permutations.negative, shape).astype(np.uint8) * np.uint8(255)
    return np.ascontiguousarray(join_blocks(blocks, height, width, patch_size).reshape(-1))


def apply_index(images: Any, index: Any, mask: Any = None) -> Any:
    """Permutes the values of each image by `gather_index`, and inverts those of `gather_mask`.

    Args:
      images: numpy or JAX array [..., height, width, channels], of any dtype; uint8 with a mask.
      index: integer array [height * width * channels], of numpy or JAX.
      mask: uint8 array likewise, or None.

    Returns:
      An array like `images`. The same for numpy and JAX, bit for bit.

    Raises:
      UserError: another size, or values to invert that are not uint8.
    """
    xp = images.__array_namespace__()
    flat = images.reshape(*images.shape[:-3], math.prod(images.shape[-3:]))
    if flat.shape[-1] != index.shape[0]:
        raise UserError(f"an index for {index.shape[0]} values does not fit images of {images.shape[-3:]}")
    flat = xp.take(flat, index, axis=-1, mode="clip")
    if mask is not None:
        if images.dtype != np.uint8:
            raise UserError(f"values of {images.dtype} cannot be inverted: give uint8 images")
        flat = flat ^ mask
    return flat.reshape(images.shape)


def _check_shapes(permutations: Permutations, shape: tuple[int, ...], size: str, patch_size: int) -> None:
    blocks, values = shape
    for what, part, shapes in (
        ("block permutation", permutations.block, ((blocks,),)),
        ("pixel permutation", permutations.pixel, ((values,), (blocks, values))),
        ("mask of inverted values", permutations.negative, ((values,), (blocks, values))),
    ):
        if part is not None and part.shape not in shapes:
            raise UserError(
                f"the {what} has shape {part.shape}, and images of {size} with "
                f"blocks of {patch_size} need {shapes[0]}: derive it for this size"
            )
