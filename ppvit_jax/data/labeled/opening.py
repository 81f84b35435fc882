"""Labeled images as the input of a command: numbered images to convert or predict, or one split to evaluate."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from ppvit_jax.data.export import check_folder_name
from ppvit_jax.data.hashing import digest_of
from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.labeled.division import Chosen
from ppvit_jax.data.labeled.examples import Collection, Examples
from ppvit_jax.data.labeled.loading import hash_images, make_source
from ppvit_jax.data.listing import Images, Split
from ppvit_jax.data.source import Source
from ppvit_jax.data.splits import TRAIN, split_role
from ppvit_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class LabeledSplit:
    """One split, ready to be evaluated.

    Attributes:
      source: its images and labels, read on demand.
      class_names: the name of class i at index i.
      name: index -> the image's name in the input.
    """

    source: Source
    class_names: tuple[str, ...]
    name: Callable[[int], str]


def open_split(collection: Collection, split: str, reader: ImageReader) -> LabeledSplit:
    """Opens one split of labeled images.

    Args:
      collection: the input, which was opened with `labeled=True`.
      split: its name; "" for the only one.
      reader: decodes the images, to one size.

    Raises:
      UserError: there is no such split, or several for "".
    """
    examples = collection.find_split(split)
    assert examples.labels is not None
    chosen = Chosen(examples, np.arange(examples.count), examples.labels)
    source = make_source(collection, chosen, reader, in_memory=False)
    return LabeledSplit(source, collection.class_names, examples.name)


def number_images(collection: Collection, splits: Sequence[str], reader: ImageReader) -> Images:
    """Numbers the images of some splits, as those of a folder are.

    Image 12 of the class cat has the output train/cat/00000012, or cat/00000012 if the input has one split only.

    Args:
      collection: the input.
      splits: names of splits; an empty sequence stands for all.
      reader: decodes the images.

    Raises:
      UserError: there is no such split.
    """
    chosen = [collection.find_split(split) for split in splits] if splits else list(collection.splits)
    starts = itertools.accumulate((examples.count for examples in chosen), initial=0)
    return Images(
        tuple(_make_split(collection, *pair, reader) for pair in zip(chosen, starts, strict=False)),
        collection.root,
        notes=tuple(collection.describe()),
        digest=lambda: _digest(collection, chosen),
    )


def check_class_folders(collection: Collection) -> None:
    """Makes sure that the classes can be folders, and images stay what they are.

    Raises:
      UserError: the name of a class cannot be that of a folder or would be that of a split, or the images are copies.
    """
    for name in collection.class_names:
        check_folder_name(name)
        if name.startswith("."):
            raise UserError(f"the class name {name!r} would be that of a hidden folder: rename the class")
        if len(collection.splits) == 1 and split_role(name):
            raise UserError(f"the class name {name!r} would be read as that of a split: rename the class")
    if collection.manifest and collection.manifest.header.copies > 1:
        raise UserError(
            f"the images in {collection.manifest.folder} are augmented copies: give their folder as --input"
        )


def _make_split(collection: Collection, examples: Examples, start: int, reader: ImageReader) -> Split:
    labels, split = examples.labels, examples.split if len(collection.splits) > 1 else ""

    def output(index: int) -> str:
        label = "" if labels is None else collection.class_names[labels[index]]
        return "/".join(filter(None, (split, label, f"{start + index:08d}")))

    def read(index: int) -> tuple[np.ndarray, int | None]:
        image = reader.decode(examples.read(index), collection.title(examples, index))
        return image, None if labels is None else int(labels[index])

    is_training = not examples.split or split_role(examples.split) == TRAIN
    return Split(split, examples.count, examples.name, output, read, is_training)


def _digest(collection: Collection, chosen: Sequence[Examples]) -> str:
    """Returns the SHA-256 of the images' names, labels and content."""

    def entries(examples: Examples) -> list[list[object]]:
        labels = [None] * examples.count if examples.labels is None else examples.labels.tolist()
        digests = hash_images(examples, np.arange(examples.count))
        return [[examples.name(index), label, digests[index]] for index, label in enumerate(labels)]

    heads: list[list[object]] = [[*collection.class_names], [[examples.split, examples.count] for examples in chosen]]
    return digest_of(itertools.chain(heads, *map(entries, chosen)))
