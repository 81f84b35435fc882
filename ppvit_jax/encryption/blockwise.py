"""Encryptions that permute the values of an image and invert some: one gather and one exclusive or."""

import math

import numpy as np
from numpy.typing import ArrayLike

from ppvit_jax.encryption.method import Encryption, Randomness, Secret
from ppvit_jax.encryption.permutations import Array, Permutations, check_size, join_blocks, split_blocks
from ppvit_jax.errors import UserError


class Gather(Encryption):
    """Encryption by one gather.

    `encrypted.reshape(-1) = image.reshape(-1)[index] ^ mask`, where the mask is 255 for inverted values, 0 for others.
    The secret is {"index": int32 [values]}, with {"mask": uint8 [values]} if the method inverts values.
    """

    def encrypt(self, images: Array, secret: Secret, numbers: ArrayLike | None = None) -> Array:
        xp = images.__array_namespace__()
        index, mask = secret["index"], secret.get("mask")
        flat = images.reshape(*images.shape[:-3], math.prod(images.shape[-3:]))
        if flat.shape[-1] != index.shape[0]:
            raise UserError(
                f"an index for {index.shape[0]} values does not fit images of {images.shape[-3:]}: derive another"
            )
        moved = xp.take(flat, index, axis=-1, mode="clip")
        if mask is not None:
            if images.dtype != np.uint8:
                raise UserError(f"values of {images.dtype} cannot be inverted: give uint8 images")
            moved = moved ^ mask
        return moved.reshape(images.shape)

    def undo(self, secret: Secret) -> Secret:
        return undo(secret)


class BlockWise(Gather):
    """Encryption that is described by `Permutations`, derived from a key."""

    def permutations(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        """Derives the block and pixel permutations and the inversions; arguments and errors as for `derive`."""
        raise NotImplementedError

    @property
    def program(self) -> Encryption:
        return Gather(block_size=1)

    def derive(self, randomness: Randomness, *, height: int, width: int) -> Secret:
        return make_secret(self.permutations(randomness, height=height, width=width), height, width, self.block_size)

    def absorb(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        permutations = self.permutations(randomness, height=height, width=width)
        if not permutations.alike:
            raise UserError(
                f"a model cannot be adapted to {self.spec}: the encryption inside a block differs from block to block, "
                "and the patch embedding has one kernel for all blocks; share the key among blocks, by the option "
                "`shared`"
            )
        return permutations

    def count(self, height: int, width: int) -> tuple[int, int]:
        """Returns the number of blocks in an image and the number of values in a block."""
        check_size(height, width, self.block_size)
        return (height // self.block_size) * (width // self.block_size), self.block_size**2 * 3


def make_secret(permutations: Permutations, height: int, width: int, block_size: int, channels: int = 3) -> Secret:
    """Converts permutations to the secret of `Gather`.

    Block scrambling and pixel shuffling (the paper's equations 2 and 15) commute if all blocks are treated alike.

    Args:
      permutations: see `Permutations`.
      height, width: sides of an image in pixels.
      block_size: side of a block in pixels.
      channels: values per pixel.

    Returns:
      {"index": int32 [values]}, with {"mask": uint8 [values]} if values are inverted.

    Raises:
      UserError: the image's sides are not multiples of the block size, or the permutations are for another size.
    """
    check_size(height, width, block_size)
    places = np.arange(height * width * channels, dtype=np.int32).reshape(height, width, channels)
    index = split_blocks(places, block_size)
    blocks, values = index.shape
    for name, array, shapes in (
        ("block permutation", permutations.block, ((blocks,),)),
        ("pixel permutation", permutations.pixel, ((values,), (blocks, values))),
        ("mask of inverted values", permutations.negative, ((values,), (blocks, values))),
    ):
        if array is not None and array.shape not in shapes:
            raise UserError(
                f"the {name} has shape {array.shape}, but images of {height}x{width} with "
                f"blocks of {block_size} need {shapes[0]}: derive it for this size"
            )

    def flatten(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(join_blocks(array, height, width, block_size).reshape(-1))

    if permutations.block is not None:
        index = index[permutations.block]
    if permutations.pixel is not None:
        index = np.take_along_axis(index, np.broadcast_to(permutations.pixel, index.shape), axis=1)
    secret = {"index": flatten(index)}
    if permutations.negative is not None:
        mask = np.broadcast_to(permutations.negative, index.shape).astype(np.uint8) * np.uint8(255)
        secret["mask"] = flatten(mask)
    return secret


def undo(secret: Secret) -> Secret:
    """Inverts a secret that consists of an "index" and perhaps a "mask"; the dtypes stay the same."""
    back = secret["index"].argsort().astype(secret["index"].dtype)
    return {"index": back} if "mask" not in secret else {"index": back, "mask": secret["mask"][back]}


def mostly_half(permutation: np.ndarray) -> np.ndarray:
    """Returns bool [n], `permutation > n / 2`.

    The public code of these methods chooses the values to invert in this way: n / 2 - 1 of n.
    """
    return permutation > len(permutation) / 2
