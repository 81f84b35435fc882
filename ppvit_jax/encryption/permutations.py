"""What every permutation-based encryption shares: the permutations, and one gather over an image's values."""

import dataclasses
from typing import Any

import numpy as np

from ppvit_jax.errors import UserError

# name -> (block scrambling, pixel shuffling)
ENCRYPTIONS = {"none": (False, False), "bs": (True, False), "ps": (False, True), "bs+ps": (True, True)}


@dataclasses.dataclass(frozen=True, eq=False)
class Permutations:
    """The two secret permutations, each None where the encryption does not use it.

    block: int [blocks], of the blocks of an image in row-major order.
    pixel: int [patch_size * patch_size * 3], of the values of a block in (row, column, channel) order.
    Both by the convention out[i] = in[permutation[i]].
    """

    block: np.ndarray | None = None
    pixel: np.ndarray | None = None

    def inverse(self) -> "Permutations":
        """The permutations that undo these."""
        return Permutations(
            block=None if self.block is None else np.argsort(self.block).astype(np.int32),
            pixel=None if self.pixel is None else np.argsort(self.pixel).astype(np.int32),
        )


def permutations_needed(encryption: str) -> tuple[bool, bool]:
    """Whether an encryption scrambles blocks, and whether it shuffles pixels.

    Raises:
      UserError: an unknown name.
    """
    if encryption not in ENCRYPTIONS:
        raise UserError(f"unknown encryption {encryption!r}: use one of {', '.join(ENCRYPTIONS)}")
    return ENCRYPTIONS[encryption]


def gather_index(
    permutations: Permutations, *, height: int, width: int, patch_size: int, channels: int = 3
) -> np.ndarray:
    """The index of one gather that encrypts a flattened image: int32 [height * width * channels].

    `encrypted.reshape(-1) = image.reshape(-1)[gather_index]`; the inverse permutations decrypt. Block
    scrambling and pixel shuffling (the paper's equations 2 and 15) commute, so their order does not matter.

    Raises:
      UserError: sides that are not multiples of the block size, or permutations of other sizes.
    """
    if patch_size <= 0 or height % patch_size or width % patch_size or not height or not width:
        raise UserError(
            f"an image of {height}x{width} does not divide into blocks of {patch_size}x{patch_size}: "
            "resize it to multiples of the block size"
        )
    rows, columns = height // patch_size, width // patch_size
    blocks, values = rows * columns, patch_size * patch_size * channels
    for what, permutation, length in (
        ("block", permutations.block, blocks),
        ("pixel", permutations.pixel, values),
    ):
        if permutation is not None and permutation.shape != (length,):
            raise UserError(
                f"the {what} permutation has shape {permutation.shape}, and images of {height}x{width} with "
                f"blocks of {patch_size} need ({length},): derive it for this size"
            )
    index = np.arange(height * width * channels, dtype=np.int32)
    index = _split(index, rows, columns, patch_size, channels)
    if permutations.block is not None:
        index = index[permutations.block]
    if permutations.pixel is not None:
        index = index[:, permutations.pixel]
    index = index.reshape(rows, columns, patch_size, patch_size, channels)
    return np.ascontiguousarray(index.transpose(0, 2, 1, 3, 4).reshape(-1))


def apply_index(images: Any, index: Any) -> Any:
    """Permutes the values of each image by `gather_index`.

    Args:
      images: numpy or JAX array [..., height, width, channels], of any dtype.
      index: integer array [height * width * channels], of numpy or JAX.

    Returns:
      An array like `images`. The same for numpy and JAX, bit for bit: no value is changed.
    """
    xp = images.__array_namespace__()
    flat = images.reshape(*images.shape[:-3], -1)
    if flat.shape[-1] != index.shape[0]:
        raise UserError(f"an index for {index.shape[0]} values does not fit images of {images.shape[-3:]}")
    return xp.take(flat, index, axis=-1, mode="clip").reshape(images.shape)


def permute(images: Any, permutations: Permutations, patch_size: int) -> Any:
    """Applies block and pixel permutations to images [..., height, width, channels] in one gather."""
    height, width, channels = images.shape[-3:]
    index = gather_index(permutations, height=height, width=width, patch_size=patch_size, channels=channels)
    return apply_index(images, index)


def _split(image: np.ndarray, rows: int, columns: int, patch_size: int, channels: int) -> np.ndarray:
    blocks = image.reshape(rows, patch_size, columns, patch_size, channels).transpose(0, 2, 1, 3, 4)
    return blocks.reshape(rows * columns, patch_size * patch_size * channels)
