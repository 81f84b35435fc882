"""Listing of the images that a command reads: a folder, one file, or a data set prepared by tensorflow-datasets."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ppvit_jax.data import manifest as manifests
from ppvit_jax.data import tfds_source
from ppvit_jax.data.folders import list_images
from ppvit_jax.data.images import ImageReader
from ppvit_jax.errors import UserError

SPLIT_NAMES = frozenset({"train", "test", "val", "valid", "validation"})
_TRAINING = "train"


@dataclasses.dataclass(frozen=True)
class Item:
    """One image and its place in the output.

    Attributes:
      number: the image's place among all images.
      original: its name in the input.
      output: its path in an output folder, without an extension.
      augments: True if augmented copies may be made of it.
      sha256: SHA-256 of its file, in hexadecimal, from the input's manifest; None without a manifest.
    """

    number: int
    original: str
    output: str
    augments: bool
    sha256: str | None


@dataclasses.dataclass(frozen=True)
class Split:
    """Images that belong together.

    Attributes:
      name: name of the split, such as "train"; "" if the input has no splits.
      count: number of images.
      original: index -> the image's name in the input.
      output: index -> its path in an output folder, without an extension, such as "cat/00000012".
      read: index -> uint8 [height, width, 3] and the class (None if the folder's name gives the class). Several threads
        call it at once.
      sha256: index -> SHA-256 of the file, from the input's manifest; None without a manifest.
    """

    name: str
    count: int
    original: Callable[[int], str]
    output: Callable[[int], str]
    read: Callable[[int], tuple[np.ndarray, int | None]]
    sha256: Callable[[int], str | None] = lambda _: None

    @property
    def is_training(self) -> bool:
        """True if augmented copies make sense, which they do for all but test images."""
        return self.name in ("", _TRAINING)


@dataclasses.dataclass(frozen=True)
class TfdsInfo:
    """Name, version and class names of a data set prepared by tensorflow-datasets."""

    name: str
    version: str
    class_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Images:
    """Images of an input, numbered over all splits.

    Attributes:
      splits: at least one split.
      identity: text that identifies the images, made from their names and sizes or from a data set's version.
      root: folder of the image files or of the data set's files.
      ignored: number of files that are not images.
      tfds: description of a tfds data set; None for image files.
    """

    splits: tuple[Split, ...]
    identity: str
    root: Path
    ignored: int = 0
    tfds: TfdsInfo | None = None

    @property
    def count(self) -> int:
        """Number of images in all splits."""
        return sum(split.count for split in self.splits)

    def locate(self, number: int) -> tuple[Split, int]:
        """Returns an image's split and its index there, given its number over all splits."""
        for split in self.splits:
            if number < split.count:
                return split, number
            number -= split.count
        raise IndexError(number)

    def item(self, number: int) -> Item:
        """Describes an image, given its number over all splits."""
        split, index = self.locate(number)
        return Item(number, split.original(index), split.output(index), split.is_training, split.sha256(index))


def open_folder(path: Path, reader: ImageReader, manifest: manifests.Manifest | None) -> Images:
    """Opens a folder of images, one image, or the version folder of a data set prepared by tensorflow-datasets.

    Args:
      path: the folder or file.
      reader: decodes the images.
      manifest: the folder's manifest, if it has one; files are compared with it.

    Raises:
      UserError: the path does not exist, or it has no images.
    """
    if not path.exists():
        raise UserError(f"there is no {path}: give a folder of images")
    if (path / "dataset_info.json").is_file():
        return open_tfds(path, (), reader)
    return open_files(path, reader, keep_names=False, manifest=manifest)


def open_files(path: Path, reader: ImageReader, *, keep_names: bool, manifest: manifests.Manifest | None) -> Images:
    """Lists a folder of images, or one image.

    By default, an image is renamed to its number in the order of the paths, because its name may reveal the content.
    Class folders at the top, or below train and test folders at the top, keep their names. A folder with images at its
    top has no classes, so the names of its subfolders are dropped too.

    Args:
      path: the folder or the file.
      reader: decodes the images.
      keep_names: True keeps the paths, except for the extension.
      manifest: the folder's manifest, if it has one; files are compared with it.

    Raises:
      UserError: there are no images, or two files differ only in their extension.
    """
    if path.is_dir():
        root, (names, ignored) = path, list_images(path)
    else:
        root, names, ignored = path.parent, [path.name], 0
    if manifest is not None:
        manifest.check_listing(names if path.is_dir() else ["."], path)
    depth = _depth_of_classes(names)
    if keep_names:
        stems = collections.Counter(Path(name).with_suffix("").as_posix() for name in names)
        if len(stems) < len(names):
            raise UserError(f"{root / stems.most_common(1)[0][0]} is the name of several images: rename one of them")

    def output(number: int) -> str:
        if keep_names:
            return Path(names[number]).with_suffix("").as_posix()
        return "/".join([*names[number].split("/")[:depth], f"{number:08d}"])

    def sha256(number: int) -> str | None:
        return manifest.sha256(root / names[number]) if manifest else None

    identity = hashlib.sha256()
    # The names are ordered part by part, so the images of a split are consecutive.
    counts: dict[str, int] = {}
    for name in names:
        split = name.split("/")[0] if depth == 2 else ""
        counts[split] = counts.get(split, 0) + 1
        try:
            identity.update(json.dumps([name, (root / name).stat().st_size]).encode())
        except OSError as error:
            raise UserError(f"cannot read {root / name} ({error.strerror}): replace or remove it") from None

    def make_split(name: str, start: int) -> Split:
        return Split(
            name,
            counts[name],
            lambda index: names[start + index],
            lambda index: output(start + index),
            lambda index: (reader.read(root / names[start + index], sha256(start + index)), None),
            lambda index: sha256(start + index),
        )

    starts = itertools.accumulate(counts.values(), initial=0)
    splits = tuple(make_split(name, start) for name, start in zip(counts, starts, strict=False))
    return Images(splits, identity.hexdigest(), root, ignored)


def open_tfds(path: Path, splits: Sequence[str], reader: ImageReader, *, checks: bool = True) -> Images:
    """Opens a data set that tensorflow-datasets has prepared as array_record files.

    Images of one fixed size keep it and are resized later, as in training. Images of several sizes are resized by the
    reader.

    Args:
      path: the folder of a version, from `ppvit_jax.data.tfds_source.find_prepared`.
      splits: names of splits; an empty sequence stands for all splits.
      reader: decodes the images.
      checks: True compares the files with their manifest, if there is one.

    Raises:
      UserError: a split does not exist, or the data set or its manifest is damaged.
    """
    if checks and (manifest := manifests.read(path)):
        manifest.check_files()
    opened = {split: tfds_source.Records(path, split) for split in splits or tfds_source.split_names(path)}

    def make_split(split: str, records: tfds_source.Records) -> Split:
        def read(index: int) -> tuple[np.ndarray, int]:
            content, label = records.read([index])[0]
            return records.decode(index, content, reader), label

        def name(index: int) -> str:
            return f"{split}/{index:08d}"

        return Split(split, len(records), name, name, read)

    made = tuple(make_split(*item) for item in opened.items())
    identity = json.dumps([path.parent.name, path.name, [[split.name, split.count] for split in made]])
    first = next(iter(opened.values()))
    return Images(made, identity, path, tfds=TfdsInfo(first.name, path.name, first.class_names))


def _depth_of_classes(names: Sequence[str]) -> int:
    """Counts the leading folders of each path that name splits and classes: 0, 1 or 2."""
    shallowest = min(name.count("/") for name in names)
    if shallowest > 1 and {name.split("/")[0] for name in names} <= SPLIT_NAMES:
        return 2
    return min(shallowest, 1)
