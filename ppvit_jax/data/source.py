"""Data sets: sources of labeled uint8 images for training and testing, in memory or decoded on access."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Protocol

import numpy as np

from ppvit_jax.data.manifest import Manifest
from ppvit_jax.data.progress import Progress
from ppvit_jax.errors import UserError

# Decoded images that take less are kept in memory, unless the user says otherwise.
IN_MEMORY_BYTES = 4 * 2**30
_CHUNK = 256
_MAX_THREADS = 8  # more threads contend for the interpreter lock without decoding faster


class Source(Protocol):
    """Labeled images of one shape, in a fixed order."""

    @property
    def labels(self) -> np.ndarray:
        """Class of each image: int32 [n]; or, for any number of labels per image, uint8 [n, classes] of 0 and 1."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of an image, (height, width, 3)."""
        ...

    def __len__(self) -> int: ...

    def fetch(self, index: int) -> np.ndarray:
        """Returns image `index`, uint8 [height, width, 3].

        Raises:
          UserError: the image cannot be read.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Data set with training and test images.

    Attributes:
      name: its name, such as "cifar10", "digits" or the name of a folder.
      train: the training images.
      test: the test images.
      class_names: the name of class i at index i.
      manifest: the manifest of the images' folder, which describes their encryption; None if the folder has none.
      digest: SHA-256 of the content that a run works on, in hexadecimal; "" if nobody has computed it.
      train_digest: the same of the training images alone.
      resize: way in which images of other sizes are resized, as `ImageReader` names it; "" if all have one size.
      validation: the validation images; None without any.
      train_groups: int [n], equal for training images that are copies of one image, so that a validation part keeps
        them together; None if there are no copies.
    """

    name: str
    train: Source
    test: Source
    class_names: tuple[str, ...]
    manifest: Manifest | None = None
    digest: str = ""
    train_digest: str = ""
    resize: str = ""
    validation: Source | None = None
    train_groups: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Source with decoded images in memory.

    Attributes:
      images: uint8 [n, height, width, 3].
      labels: int32 [n], or uint8 [n, classes]; see `Source`.
    """

    images: np.ndarray
    labels: np.ndarray

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def __len__(self) -> int:
        return len(self.images)

    def fetch(self, index: int) -> np.ndarray:
        """Returns image `index`, uint8 [height, width, 3]."""
        return self.images[index]


@dataclasses.dataclass(frozen=True, eq=False)
class StreamSource:
    """Source that decodes an image each time it is fetched.

    Attributes:
      labels: int32 [n], or uint8 [n, classes]; see `Source`.
      image_shape: (height, width, 3) of every image.
      read: index -> uint8 [height, width, 3]. Several threads call it at once.
    """

    labels: np.ndarray
    image_shape: tuple[int, int, int]
    read: Callable[[int], np.ndarray]

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, index: int) -> np.ndarray:
        """Returns image `index`, uint8 [height, width, 3].

        Raises:
          UserError: the image cannot be read.
        """
        return self.read(index)


def from_text(choice: str | bool) -> str | bool:
    """Converts the text "True" or "False" to a bool; the command line gives all values as text."""
    return {"True": True, "False": False}.get(choice, choice) if isinstance(choice, str) else choice


def take(source: Source, indices: np.ndarray) -> ArraySource | StreamSource:
    """Returns a source of some of the images of another.

    Args:
      source: the other source.
      indices: int [n], places of the images, in the order that the new source has.
    """
    if isinstance(source, ArraySource):
        return ArraySource(source.images[indices], source.labels[indices])
    return StreamSource(source.labels[indices], source.image_shape, lambda index: source.fetch(int(indices[index])))


def subset(count: int, examples: int, seed: int, field: str) -> np.ndarray:
    """Draws a random subset of examples for a quick trial, in ascending order.

    A smaller subset with the same seed is contained in a larger one.

    Args:
      count: number of examples.
      examples: size of the subset; 0 keeps all examples.
      seed: seed of the draw.
      field: name of the configuration field, for the message.

    Returns:
      int64 [examples], or [count] for examples = 0.

    Raises:
      UserError: there are fewer than `examples` examples, or a number is negative.
    """
    if not 0 <= examples <= count:
        raise UserError(f"{field} is {examples}, but there are {count} examples: give 0 (all) to {count}")
    if seed < 0:
        raise UserError(f"the seed is {seed}: give a number from 0 on")
    if examples == 0:
        return np.arange(count)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, count])))
    return np.sort(generator.permutation(count)[:examples])


def map_chunks(count: int, work: Callable[[Sequence[int]], None], progress: Progress) -> None:
    """Calls `work` on consecutive chunks of range(count) in threads; the first exception ends the work."""
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    executor = futures.ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1))
    try:
        for chunk, _ in zip(chunks, executor.map(work, chunks), strict=True):
            progress.update(chunk.stop)
    finally:
        executor.shutdown(cancel_futures=True)
        progress.close()
