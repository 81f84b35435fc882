"""Images that a command reads: a folder, one file, or a data set prepared by tensorflow-datasets."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ppvit_jax.data import manifest as manifests
from ppvit_jax.data import tfds_source
from ppvit_jax.data.copies import find_copies, number_copies
from ppvit_jax.data.folders import FolderListing, SplitFolder, list_folder
from ppvit_jax.data.formats import split_ending
from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.listing_summary import check_images, print_summary
from ppvit_jax.data.splits import TRAIN, split_role
from ppvit_jax.errors import UserError, print_note


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
      is_training: True if augmented copies make sense, as for a split to train on and for an input without splits.
      sha256: index -> SHA-256 of the file, from the input's manifest; None without a manifest.
    """

    name: str
    count: int
    original: Callable[[int], str]
    output: Callable[[int], str]
    read: Callable[[int], tuple[np.ndarray, int | None]]
    is_training: bool
    sha256: Callable[[int], str | None] = lambda _: None


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
      root: folder of the image files or of the data set's files.
      copies: number of files that are copies of one image; see `ppvit_jax.data.manifest.Header`.
      notes: assumptions to print with the summary of the files.
      listing: the files, with their places; None for a tfds data set.
      tfds: description of a tfds data set; None for image files.
      digest: computes the SHA-256 of the names and content of images inside other files; None for image files.
      labels: split and label of each image by its output, if these tell neither; None if they do.
    """

    splits: tuple[Split, ...]
    root: Path
    copies: int = 1
    notes: tuple[str, ...] = ()
    listing: FolderListing | None = None
    tfds: TfdsInfo | None = None
    digest: Callable[[], str] | None = None
    labels: Callable[[], dict[str, tuple[str, str]]] | None = None

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

    def print_summary(self) -> None:
        """Prints splits, classes, files that are left out, and assumptions, on stderr."""
        if self.listing is not None:
            print_summary(self.listing)
        for note in self.notes:
            print_note(note)


def open_folder(path: Path, reader: ImageReader, manifest: manifests.Manifest | None) -> Images:
    """Opens images that keep their names and need no classes, and prints a summary on stderr.

    Args:
      path: a folder of images, one image, or the version folder of a data set prepared by tensorflow-datasets.
      reader: decodes the images.
      manifest: the folder's manifest, if it has one; files are compared with it.

    Raises:
      UserError: the path does not exist, or it has no images.
    """
    if not path.exists():
        raise UserError(f"there is no {path}: give a folder of images")
    if (path / "dataset_info.json").is_file():
        return open_tfds(path, (), reader)
    images = _open(_list_files(path, manifest, skip_unreadable=False), reader, manifest, keep_names=False)
    images.print_summary()
    return images


def open_files(
    path: Path,
    reader: ImageReader,
    *,
    keep_names: bool,
    manifest: manifests.Manifest | None,
    skip_unreadable: bool = False,
) -> Images:
    """Opens a folder of images, or one image, for an output folder.

    By default, an image is renamed to its number in the order of the paths, because its name may reveal the content.
    Splits and class folders keep their names. The copies of image 12 are named 00000012_0, 00000012_1 and so on.

    Args:
      path: the folder or the file.
      reader: decodes the images.
      keep_names: True keeps the paths, except for the extension.
      manifest: the folder's manifest, if it has one; files are compared with it.
      skip_unreadable: True leaves out links to nothing and folders that cannot be read.

    Raises:
      UserError: there are no images; classes would be lost without their names; or two files that keep their names
        differ only in their extension.
    """
    listing = _list_files(path, manifest, skip_unreadable)
    if not keep_names:
        listing.check_labels()
        if listing.stray:
            raise UserError(listing.stray)
    return _open(listing, reader, manifest, keep_names=keep_names)


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
    manifest = manifests.read(path)
    if checks and manifest:
        manifest.check_files()
    opened = {split: tfds_source.Records(path, split) for split in splits or tfds_source.split_names(path)}

    def make_split(split: str, records: tfds_source.Records) -> Split:
        def read(index: int) -> tuple[np.ndarray, int]:
            content, label = records.read([index])[0]
            return records.decode(index, content, reader), label

        def name(index: int) -> str:
            return f"{split}/{index:08d}"

        return Split(split, len(records), name, name, read, split_role(split) == TRAIN)

    first = next(iter(opened.values()))
    return Images(
        tuple(make_split(*item) for item in opened.items()),
        path,
        manifest.header.copies if manifest else 1,
        tfds=TfdsInfo(first.name, path.name, first.class_names),
    )


def _list_files(path: Path, manifest: manifests.Manifest | None, skip_unreadable: bool) -> FolderListing:
    """Lists a folder, or one image.

    Raises:
      UserError: there is no image, or the files are not those that the manifest describes.
    """
    if path.is_dir():
        is_own = manifest is not None and manifest.folder == path.absolute()
        listing = list_folder(path, ignored=[manifests.NAME] if is_own else (), skip_unreadable=skip_unreadable)
    elif not path.is_file():
        raise UserError(f"{path} is neither a folder nor a file: give a folder of images, or one image")
    else:
        split = SplitFolder("", "", {}, (0,))
        listing = FolderListing(path.parent, [path.name], frozenset(), (), (split,), depth=0)
    check_images(listing)
    if manifest is not None:
        manifest.check_listing(listing.images if path.is_dir() else ["."], path)
    return listing


def _open(
    listing: FolderListing, reader: ImageReader, manifest: manifests.Manifest | None, *, keep_names: bool
) -> Images:
    names, root = listing.images, listing.root
    runs = _consecutive_splits(listing)
    training = [names[position] for _, is_training, positions in runs if is_training for position in positions]
    copies, assumed = find_copies(training, manifest)
    output = _name_outputs(listing, keep_names, copies)

    def sha256(number: int) -> str | None:
        return manifest.sha256(root / names[number]) if manifest else None

    def make_split(name: str, is_training: bool, positions: range) -> Split:
        start = positions.start
        return Split(
            name,
            len(positions),
            lambda index: names[start + index],
            lambda index: output(start + index),
            lambda index: (reader.read(root / names[start + index], sha256(start + index)), None),
            is_training,
            lambda index: sha256(start + index),
        )

    return Images(tuple(make_split(*run) for run in runs), root, copies, (assumed,) if assumed else (), listing)


def _consecutive_splits(listing: FolderListing) -> list[tuple[str, bool, range]]:
    """Returns name, `Split.is_training` and the images' positions of each split, in the order of the images."""
    count = len(listing.images)
    if not listing.has_splits:
        return [("", True, range(count))]
    roles = {split.name: split.role for split in listing.splits}
    runs = []
    for name, members in itertools.groupby(range(count), lambda number: listing.images[number].rpartition("/")[0]):
        positions = list(members)
        top = name.partition("/")[0]
        start = runs.pop()[2].start if runs and runs[-1][0] == top else positions[0]
        runs.append((top, roles.get(top) == TRAIN, range(start, positions[-1] + 1)))
    return runs


def _name_outputs(listing: FolderListing, keep_names: bool, copies: int) -> Callable[[int], str]:
    """Returns a function from an image's number to its path in an output folder, without an extension."""
    names = listing.images
    if keep_names:
        stems = collections.Counter(split_ending(name)[0] for name in names)
        if len(stems) < len(names):
            stem = stems.most_common(1)[0][0]
            raise UserError(f"{listing.root / stem} is the name of several images: rename one of them")
        return lambda number: split_ending(names[number])[0]
    files = number_copies(names, copies) if copies > 1 else None

    def output(number: int) -> str:
        folders = names[number].split("/")[:-1][: listing.depth]
        return "/".join([*folders, files[number] if files else f"{number:08d}"])

    return output
