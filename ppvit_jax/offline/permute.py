"""From images to permuted PNG files: augmentation, resizing, permutation, encoding; in threads, in order."""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
import os
from collections.abc import Callable, Generator, Iterable
from concurrent import futures
from typing import TypeVar

import numpy as np
from PIL import Image

from ppvit_jax.encryption import Encryption, Secret
from ppvit_jax.errors import UserError

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What happens to an image.

    image_size: side of the result in pixels.
    change: uint8 image and number -> uint8 image: encrypts or decrypts. The number tells the image from every other.
    resizes: whether images of other sizes are resized; if not, they are an error.
    copies: augmented copies of each training image; 0 for the image itself alone.
    augmentation, seed: of the copies; see `ppvit_jax.data.preprocess`.
    """

    image_size: int
    change: Callable[[np.ndarray, int], np.ndarray]
    resizes: bool = True
    copies: int = 0
    augmentation: str = "none"
    seed: int = 0

    def apply(self, image: np.ndarray, number: int, name: str, augments: bool) -> list[bytes]:
        """Makes the PNG files of one image.

        Args:
            image: uint8 [height, width, 3].
            number: the image's place among all, which decides its augmentations.
            name: for messages.
            augments: whether to make augmented copies.

        Returns:
            `copies` files if it augments, else one.

        Raises:
            UserError: the image has another size, and this recipe does not resize.
        """
        size = (self.image_size, self.image_size)
        if not self.resizes and image.shape[:2] != size:
            height, width = image.shape[:2]
            raise UserError(f"{name} has {width} x {height} pixels, and an encrypted image has {size[0]} x {size[1]}")
        if augments and self.copies:
            # Each copy's randomness depends on the image and the copy alone: a run that was interrupted goes on alike.
            plain = [
                _preprocessing(self.augmentation, self.image_size)(image, self.seed, number, copy)
                for copy in range(self.copies)
            ]
        elif image.shape[:2] != size:
            plain = [_preprocessing("none", self.image_size)(image, 0, 0, 0)]
        else:
            plain = [image]
        first = number * max(self.copies, 1)
        return [_png(self.change(np.asarray(image), first + copy)) for copy, image in enumerate(plain)]


def encrypting(method: Encryption, secret: Secret) -> Callable[[np.ndarray, int], np.ndarray]:
    """The `change` of a recipe that encrypts."""
    return lambda image, number: method.encrypt(image, secret, np.asarray(number, np.uint32))


def in_threads(work: Callable[[int], _T], numbers: Iterable[int]) -> Generator[tuple[int, _T]]:
    """Yields (number, work(number)) in order, some ahead in threads, in constant memory.

    Pillow's decoder and encoder, where most of the time goes, let other threads run.
    """
    threads = os.cpu_count() or 1
    waiting: collections.deque[tuple[int, futures.Future[_T]]] = collections.deque()
    executor = futures.ThreadPoolExecutor(threads)
    try:
        for number in numbers:
            waiting.append((number, executor.submit(work, number)))
            if len(waiting) >= 4 * threads:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
    finally:
        executor.shutdown(cancel_futures=True)


@functools.lru_cache
def _preprocessing(augmentation: str, image_size: int) -> Callable[[np.ndarray, int, int, int], np.ndarray]:
    """The very function of training, so that images encrypted here and on a device agree bit for bit."""
    import jax  # A folder of images that have their size already needs no JAX.

    from ppvit_jax.data.preprocess import preprocess

    @jax.jit
    def run(image: jax.Array, seed: int, number: int, copy: int) -> jax.Array:
        rng = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), number), copy)
        return preprocess(image[None], image_size, augmentation, rng)[0]

    return run  # pyright: ignore[reportReturnType]


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "PNG")
    return file.getvalue()
