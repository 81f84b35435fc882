"""Encryptions that permute the values of an image and invert some: one gather and one exclusive or."""

import dataclasses
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

    gathers = True

    def encrypt(self, images: Array, secret: Secret, numbers: ArrayLike | None = None) -> Array:
        xp = images.__array_namespace__()
        index, mask = secret["index"], secret.get("mask")
        flat = images.reshape(*images.shape[:-3], math.prod(images.shape[-3:]))
        if flat.shape[-1:] != index.shape:
            raise _unfit(index, *images.shape[-3:])
        return _invert(xp.take(flat, index, axis=-1, mode="clip"), mask).reshape(images.shape)

    def program_in_blocks(self, block_size: int, platform: str = "cpu") -> Encryption:
        if self.per_image or not block_size:
            return self.program
        return GatherInBlocks(block_size=block_size, platform=platform)

    def undo(self, secret: Secret) -> Secret:
        return undo(secret)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GatherInBlocks(Gather):
    """Program of `Gather` for a model that cuts each image into blocks.

    It gathers the values in the order of the blocks, then joins the blocks to an image. In a compiled step, XLA cancels
    the join against the model's cut. On a GPU, gather and normalization then are one kernel without a transpose.

    The sorted secret is {"block_index": int32 [rows, columns, values]}, with {"block_mask": uint8 [rows, columns,
    values]} if the method inverts values: the arrays of `Gather`, cut into rows and columns of blocks. Their names and
    shapes differ from those of `Gather`, so that no secret is used in the wrong order. If the sides of the images are
    not multiples of the block size, the secret stays as it is.

    Attributes:
      block_size: side of the model's blocks in pixels, its patch size.
      platform: "cpu", "gpu" or "tpu", the devices for which the program is compiled. The bytes are the same on all.
    """

    platform: str = "cpu"

    def sort(self, secret: Secret, *, height: int, width: int) -> Secret:
        if "index" not in secret or height % self.block_size or width % self.block_size:
            return secret
        if secret["index"].shape != (height * width * 3,):
            raise _unfit(secret["index"], height, width, 3)

        def cut(array: Array) -> Array:
            return split_blocks(array.reshape(height, width, 3), self.block_size).reshape(
                height // self.block_size, width // self.block_size, self.block_size**2 * 3
            )

        return {f"block_{name}": cut(array) for name, array in secret.items()}

    def encrypt(self, images: Array, secret: Secret, numbers: ArrayLike | None = None) -> Array:
        *batch, height, width, channels = images.shape
        secret = self.sort(secret, height=height, width=width)
        if "index" in secret:
            return super().encrypt(images, secret)
        index, mask = secret["block_index"], secret.get("block_mask")
        rows, columns = height // self.block_size, width // self.block_size
        if index.shape != (rows, columns, self.block_size**2 * channels):
            raise _unfit(index, height, width, channels)
        flat = images.reshape(*batch, math.prod(images.shape[-3:]))
        moved = _invert(self._take(flat, index.reshape(-1)), None if mask is None else mask.reshape(-1))
        return join_blocks(moved.reshape(*batch, rows * columns, -1), height, width, self.block_size)

    def undo(self, secret: Secret) -> Secret:
        raise UserError("a program encrypts and does not decrypt: use the method's own decrypt")

    def _take(self, flat: Array, index: Array) -> Array:
        """Returns [..., values], `flat[..., index]`."""
        xp = flat.__array_namespace__()
        if self.platform != "gpu" or isinstance(flat, np.ndarray):
            return xp.take(flat, index, axis=-1, mode="clip")
        # XLA compiles `take` for GPUs as a gather of columns, [values, batch], and transposes it.
        return xp.take_along_axis(flat, xp.broadcast_to(index, flat.shape), axis=-1, mode="clip")


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


def _invert(values: Array, mask: Array | None) -> Array:
    """Returns `values ^ mask`, or the values themselves without a mask."""
    if mask is None:
        return values
    if values.dtype != np.uint8:
        raise UserError(f"values of {values.dtype} cannot be inverted: give uint8 images")
    return values ^ mask


def _unfit(index: Array, height: int, width: int, channels: int) -> UserError:
    return UserError(
        f"an index for {math.prod(index.shape)} values does not fit images of {(height, width, channels)}: "
        "derive another"
    )


def undo(secret: Secret) -> Secret:
    """Inverts a secret that consists of an "index" and perhaps a "mask"; the dtypes stay the same."""
    back = secret["index"].argsort().astype(secret["index"].dtype)
    return {"index": back} if "mask" not in secret else {"index": back, "mask": secret["mask"][back]}


def mostly_half(permutation: np.ndarray) -> np.ndarray:
    """Returns bool [n], `permutation > n / 2`.

    The public code of these methods chooses the values to invert in this way: n / 2 - 1 of n.
    """
    return permutation > len(permutation) / 2
