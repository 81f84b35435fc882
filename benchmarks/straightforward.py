"""Block scrambling and pixel shuffling, written plainly from the paper's equations 2 and 15."""

import numpy as np


def encrypt(images: np.ndarray, block: np.ndarray, pixel: np.ndarray, block_size: int) -> np.ndarray:
    """Divides images into blocks, permutes the blocks, permutes the values of each block, and joins them again.

    Args:
      images: uint8 [n, height, width, channels].
      block: int [blocks], the permutation of the blocks in row-major order.
      pixel: int [values], the permutation of a block's values in (row, column, channel) order.
      block_size: side of a block in pixels.

    Returns:
      uint8 [n, height, width, channels].
    """
    count, height, width, channels = images.shape
    rows, columns = height // block_size, width // block_size
    blocks = images.reshape(count, rows, block_size, columns, block_size, channels).transpose(0, 1, 3, 2, 4, 5)
    blocks = blocks.reshape(count, rows * columns, block_size * block_size * channels)
    blocks = blocks[:, block][:, :, pixel]
    blocks = blocks.reshape(count, rows, columns, block_size, block_size, channels).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(count, height, width, channels)
