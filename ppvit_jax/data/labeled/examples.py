"""Labeled images in files of any format, encoded and read on demand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ppvit_jax.data.class_depth import printable
from ppvit_jax.data.manifest import Manifest
from ppvit_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of the columns of images and labels in a CSV or Parquet file; "" for the usual names."""

    image: str = ""
    label: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Images of one split, in a fixed order.

    Attributes:
      split: name of the split; "" if the input has no splits.
      count: number of images.
      labels: class of each image, int32 [n]; or uint8 [n, classes] of 0 and 1, for any number of labels per image;
        None if the images have no labels.
      name: index -> the image's name in the input, such as "train-00000.tar/cat.jpg".
      read: index -> the encoded image. Several threads call it at once.
      scan: ascending indices, int [n] -> the encoded images, in order. Each part of a file is read once.
      sha256: index -> SHA-256 of the encoded image in hexadecimal, from a manifest; None without one.
    """

    split: str
    count: int
    labels: np.ndarray | None
    name: Callable[[int], str]
    read: Callable[[int], bytes]
    scan: Callable[[np.ndarray], Iterator[bytes]]
    sha256: Callable[[int], str] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Collection:
    """Labeled images of an input.

    Attributes:
      path: the file, the folder or the pattern that the user named.
      root: the folder that the images' names begin at.
      splits: at least one split, none of them empty.
      class_names: the name of class i at index i; empty if the images have no labels.
      declared: True if the input lists its classes, so that a class without images is one, too.
      manifest: the manifest that describes the images; None if there is none.
      in_groups: True if reading an image means to read many, so that images are better decoded once for all.
      slow: reason why it takes very long to read images in another order than that of the files; "" if it does not.
    """

    path: Path
    root: Path
    splits: tuple[Examples, ...]
    class_names: tuple[str, ...]
    declared: bool
    manifest: Manifest | None = None
    in_groups: bool = False
    slow: str = ""

    def title(self, examples: Examples, index: int) -> str:
        """Returns the name of an image for messages."""
        return str(self.root / examples.name(index))

    def describe(self) -> list[str]:
        """Returns a line for each split, with its numbers of images and classes."""
        lines = []
        for examples in self.splits:
            split = f" ({printable(examples.split)})" if examples.split else ""
            classes = f"{len(self.class_names):,} classes" if self.class_names else "no class"
            lines.append(f"{printable(str(self.path))}{split}: {examples.count:,} images of {classes}")
        return lines

    def find_split(self, name: str) -> Examples:
        """Returns the split of this name, or the only one if the name is "".

        Raises:
          UserError: there is no such split, or several for "".
        """
        if not name and len(self.splits) == 1:
            return self.splits[0]
        for examples in self.splits:
            if examples.split == name:
                return examples
        names = ", ".join(examples.split or "one without a name" for examples in self.splits)
        wanted = f"no split {name!r}" if name else "several splits"
        raise UserError(f"{self.path} has {wanted}: choose among {names}")
