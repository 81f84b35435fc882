"""Labeled images as the input of a command: numbered images to convert or predict, or one split to evaluate."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from ppvit_jax.data.export import is_folder_name
from ppvit_jax.data.hashing import digest_of
from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.labeled.csv_list import SEPARATOR
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


def number_images(
    collection: Collection, splits: Sequence[str], reader: ImageReader, *, for_folders: bool = False
) -> Images:
    """Numbers the images of some splits, as those of a folder are.

    Image 12 of the class cat has the output train/cat/00000012, or cat/00000012 if the input has one split only. If
    classes cannot be folders, it has the output 00000012, and the result lists the labels.

    Args:
      collection: the input.
      splits: names of splits; an empty sequence stands for all.
      reader: decodes the images.
      for_folders: True if the outputs become files.

    Raises:
      UserError: there is no such split; or, for files, a label cannot stand in a list, or the images are copies.
    """
    chosen = [collection.find_split(split) for split in splits] if splits else list(collection.splits)
    starts = list(itertools.accumulate((examples.count for examples in chosen), initial=0))
    needs_list = for_folders and _needs_list(collection)
    return Images(
        tuple(_make_split(collection, *pair, reader, needs_list) for pair in zip(chosen, starts, strict=False)),
        collection.root,
        notes=tuple(collection.describe()),
        digest=lambda: _digest(collection, chosen),
        labels=(lambda: _list_labels(collection, chosen)) if needs_list else None,
    )


def _needs_list(collection: Collection) -> bool:
    """Returns True if folders cannot tell the classes: images have several, or a name is no name of a folder.

    Raises:
      UserError: a list cannot tell them either, or the images are copies.
    """
    if collection.manifest and collection.manifest.header.copies > 1:
        folder = collection.manifest.folder
        raise UserError(f"the images in {folder} are augmented copies: give this folder as --input")
    names = collection.class_names
    if not names:
        return False
    labels = collection.splits[0].labels
    if labels is not None and labels.ndim == 1 and all(is_folder_name(name) for name in names):
        # A hidden folder is left out, and one with the name of a split is none of a class.
        alone = len(collection.splits) == 1
        if not any(name.startswith(".") or (alone and split_role(name)) for name in names):
            return False
    if wrong := [name for name in names if SEPARATOR in name or name != name.strip()]:
        raise UserError(f"the class name {wrong[0]!r} has a {SEPARATOR!r} or a space at its end: rename the class")
    return True


def _make_split(collection: Collection, examples: Examples, start: int, reader: ImageReader, needs_list: bool) -> Split:
    labels, split = examples.labels, examples.split if len(collection.splits) > 1 else ""

    def output(index: int) -> str:
        if needs_list or labels is None:
            return f"{start + index:08d}" if needs_list else "/".join(filter(None, (split, f"{start + index:08d}")))
        return "/".join(filter(None, (split, collection.class_names[labels[index]], f"{start + index:08d}")))

    def read(index: int) -> tuple[np.ndarray, None]:
        return reader.decode(examples.read(index), collection.title(examples, index)), None

    is_training = not examples.split or split_role(examples.split) == TRAIN
    return Split(split, examples.count, examples.name, output, read, is_training)


def _list_labels(collection: Collection, chosen: Sequence[Examples]) -> dict[str, tuple[str, str]]:
    """Returns split and label of each image by its output; several labels are separated as in a CSV list."""
    names, listed = collection.class_names, {}
    for examples in chosen:
        assert examples.labels is not None
        for label in examples.labels:
            if label.ndim:
                # The separator behind a single label, or none, says that there may be several.
                text = SEPARATOR.join([names[place] for place in np.flatnonzero(label)] or [""])
                text = text if SEPARATOR in text else f"{text}{SEPARATOR}"
            else:
                text = names[label]
            listed[f"{len(listed):08d}"] = (examples.split, text)
    return listed


def _digest(collection: Collection, chosen: Sequence[Examples]) -> str:
    """Returns the SHA-256 of the images' names, labels and content."""

    def entries(examples: Examples) -> list[list[object]]:
        labels = [None] * examples.count if examples.labels is None else examples.labels.tolist()
        digests = hash_images(examples, np.arange(examples.count))
        return [[examples.name(index), label, digests[index]] for index, label in enumerate(labels)]

    heads: list[list[object]] = [[*collection.class_names], [[examples.split, examples.count] for examples in chosen]]
    return digest_of(itertools.chain(heads, *map(entries, chosen)))
