"""Steps from an image to encrypted PNG files: augmentation, resizing, encryption or decryption, encoding."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from ppvit_jax.encryption import Encryption, Secret
from ppvit_jax.errors import UserError

# uint8 [height, width, 3] and the image's number, which no other image has -> an array like the image.
Transform = Callable[[np.ndarray, int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Augmented copies of training images.

    Attributes:
      name: one of `ppvit_jax.data.augmentation.AUGMENTATIONS`.
      copies: the number of copies of each training image; 0 writes the image itself.
      seed: the seed of the augmentation.
    """

    name: str = "none"
    copies: int = 0
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Steps from an image to its files.

    Attributes:
      image_size: side of the result in pixels.
      transform: the encryption or decryption; see `make_encryptor` and `make_decryptor`.
      resizes: True to resize images of other sizes; False to reject them.
      augmentation: see `Augmentation`.
      skip_unreadable: True to leave out images that cannot be read; False to stop at the first.
    """

    image_size: int
    transform: Transform
    resizes: bool = True
    augmentation: Augmentation = Augmentation()
    skip_unreadable: bool = False

    def apply(self, image: np.ndarray, number: int, name: str, augments: bool) -> list[bytes]:
        """Makes the PNG files of one image.

        Args:
          image: uint8 [height, width, 3].
          number: the place of the image among all, on which its augmentations depend.
          name: the image's name, for messages.
          augments: True to make augmented copies.

        Returns:
          The contents of `augmentation.copies` files if it augments, else of one.

        Raises:
          UserError: the image has another size, and this recipe does not resize.
        """
        size, copies = (self.image_size, self.image_size), self.augmentation.copies
        if not self.resizes and image.shape[:2] != size:
            height, width = image.shape[:2]
            raise UserError(f"{name} has {width} x {height} pixels, but encrypted images have {size[0]} x {size[1]}")
        if augments and copies:
            # A copy depends on the image and its own number alone, so that an interrupted run writes the same copies.
            preprocess = _compile_preprocess(self.augmentation.name, self.image_size)
            plain = [preprocess(image, self.augmentation.seed, number, copy) for copy in range(copies)]
        elif image.shape[:2] != size:
            plain = [_compile_preprocess("none", self.image_size)(image, 0, 0, 0)]
        else:
            plain = [image]
        first = number * max(copies, 1)
        return [_encode_png(self.transform(image, first + copy)) for copy, image in enumerate(plain)]


def make_encryptor(method: Encryption, secret: Secret) -> Transform:
    """Returns a function that encrypts an image with its number."""
    return lambda image, number: method.encrypt(image, secret, np.asarray(number, np.uint32))


def make_decryptor(method: Encryption, secret: Secret) -> Transform:
    """Returns a function that decrypts an image, without regard to its number.

    Raises:
      UserError: the method has no inverse, or none that is the same for every image.
    """
    inverse = method.undo(secret)
    return lambda image, _: method.encrypt(image, inverse)


@functools.lru_cache
def _compile_preprocess(augmentation: str, image_size: int) -> Callable[[np.ndarray, int, int, int], np.ndarray]:
    """Compiles the function that training uses, so that both give the same bytes on the same kind of device."""
    import jax  # A folder of images that have the right size needs no JAX.

    from ppvit_jax.data.preprocess import preprocess

    @jax.jit
    def run(image: jax.Array, seed: int, number: int, copy: int) -> jax.Array:
        rng = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), number), copy)
        return preprocess(image[None], image_size, augmentation, rng)[0]

    return lambda image, seed, number, copy: np.asarray(run(image, seed, number, copy))


def _encode_png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "PNG")
    return file.getvalue()
