"""Pixel-based encryption (PE): Sirichotedumrong, Kinoshita and Kiya, the paper's [7].

Every value is inverted with probability 1/2, then the three channels of every pixel are permuted. Sources: public code
of Chang and of scramblekit for the inversion, and an outline by Chuman for the order of the steps.
"""

import dataclasses
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from ppvit_jax.encryption import chacha
from ppvit_jax.encryption.blockwise import Gather
from ppvit_jax.encryption.method import Randomness, Secret, check_choice
from ppvit_jax.encryption.permutations import Array, Permutations
from ppvit_jax.errors import UserError

# RGB, RBG, GRB, GBR, BRG, BGR
CHANNEL_ORDERS = np.array([(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)], np.int32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelEncryption(Gather):
    """Encrypts each pixel by itself; blocks play no role.

    With keys="per_image" the secret is {"key": uint32 [8]}. Image number n uses the words of
    `chacha.stream(key, n, ...)`: first a bit for each value in (row, column, channel) order, the lowest bit of a word
    first; then, from the next whole word on, a word for each pixel, whose remainder modulo 6 is the pixel's channel
    order (with a bias below 2**-29).

    Attributes:
      keys: "shared" uses one key for all images. "per_image" gives every image an independent key, as in the paper's
        [7]: then no image reveals another image's key, and a model can learn from images under any key. arXiv
        2408.05737 has keys for each image too, but for restricted permutations of blocks and pixels.
      colour: True permutes the channels. A spec may spell this option "color"; manifests record "colour".
    """

    keys: str = "shared"
    colour: bool = True
    name = "pe"
    title = "Pixel-based encryption (PE)"
    blocks = False
    spellings: ClassVar[dict[str, str]] = {"color": "colour"}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "keys", self.keys, ("shared", "per_image"))

    @property
    def per_image(self) -> bool:
        return self.keys == "per_image"

    @property
    def inverts(self) -> bool:
        return True

    def derive(self, randomness: Randomness, *, height: int, width: int) -> Secret:
        if self.per_image:
            return {"key": randomness.words("pe/images", 8)}
        pixels = height * width
        mask = randomness.bits("pe/negative", pixels * 3).astype(np.uint8) * np.uint8(255)
        index = np.arange(pixels * 3, dtype=np.int32).reshape(pixels, 3)
        if self.colour:
            codes = randomness.integers("pe/channels", pixels, len(CHANNEL_ORDERS))
            index = np.take_along_axis(index, CHANNEL_ORDERS[codes], axis=1)
        index = index.reshape(-1)
        return {"index": index, "mask": mask[index]}

    def encrypt(self, images: Array, secret: Secret, numbers: ArrayLike | None = None) -> Array:
        if not self.per_image:
            return super().encrypt(images, secret)
        mask, orders = self._draw(images, secret, numbers)
        return _take_channels(images ^ mask, orders)

    def undo(self, secret: Secret) -> Secret:
        if self.per_image:
            raise UserError(
                f"encryption {self.spec} has a key for every image, which follows from the image's number: decrypt in "
                "Python, using ppvit_jax.encryption and the numbers"
            )
        return super().undo(secret)

    def decrypt(self, images: Array, secret: Secret, numbers: ArrayLike | None = None) -> Array:
        if not self.per_image:
            return super().decrypt(images, secret)
        mask, orders = self._draw(images, secret, numbers)
        return _take_channels(images, None if orders is None else orders.argsort(axis=-1)) ^ mask

    def absorb(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        raise UserError(
            f"a model cannot be adapted to {self.spec}: every pixel of an image has a key of its own, but the patch "
            "embedding has one kernel for all blocks; use an encryption that treats all blocks alike, such as bs+ps"
        )

    def _draw(self, images: Array, secret: Secret, numbers: ArrayLike | None) -> tuple[Array, Array | None]:
        """Draws the inversion masks and channel orders of the images with these numbers.

        Returns:
          The masks, uint8 [..., height, width, 3], and the orders, int32 of that shape; None without channel orders.
        """
        checked = self.check_numbers(images, numbers)
        if images.dtype != np.uint8:
            raise UserError(f"values of {images.dtype} cannot be inverted: give uint8 images")
        xp = images.__array_namespace__()
        *batch, height, width, _ = images.shape
        pixels = height * width
        mask_words = -(-pixels * 3 // 32)
        words = chacha.stream(secret["key"], checked, mask_words + pixels)
        bits = (words[..., :mask_words, None] >> xp.arange(32, dtype=xp.uint32)) & np.uint32(1)
        mask = bits.astype(xp.uint8).reshape(*batch, 32 * mask_words)[..., : pixels * 3] * np.uint8(255)
        orders = None
        if self.colour:
            codes = (words[..., mask_words:] % np.uint32(len(CHANNEL_ORDERS))).astype(xp.int32)
            orders = xp.asarray(CHANNEL_ORDERS)[codes].reshape(images.shape)
        return mask.reshape(images.shape), orders


def _take_channels(images: Array, orders: Array | None) -> Array:
    return images if orders is None else images.__array_namespace__().take_along_axis(images, orders, axis=-1)
