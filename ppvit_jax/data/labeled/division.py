"""Training, test and validation images of labeled images: splits by their names, or a random share of each class."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np

from ppvit_jax.data.class_depth import printable
from ppvit_jax.data.copies import find_copies, group_name
from ppvit_jax.data.labeled.examples import Collection, Examples
from ppvit_jax.data.settings import DataSettings
from ppvit_jax.data.splits import TEST, VALIDATION, split_role
from ppvit_jax.data.train_and_test import draw_test
from ppvit_jax.data.validation import refuse_overlap, refuse_test
from ppvit_jax.errors import UserError, print_note, print_warning


@dataclasses.dataclass(frozen=True, eq=False)
class Chosen:
    """Some images of a split.

    Attributes:
      examples: the split.
      indices: the images' places in it, in ascending order, int64 [n].
      labels: the class of each, int32 [n]; or uint8 [n, classes] of 0 and 1.
    """

    examples: Examples
    indices: np.ndarray
    labels: np.ndarray

    def take(self, places: np.ndarray) -> Chosen:
        """Returns the images at some places, in ascending order."""
        return Chosen(self.examples, self.indices[places], self.labels[places])


def divide(collection: Collection, settings: DataSettings) -> tuple[Chosen, Chosen, Chosen | None, tuple[str, ...]]:
    """Chooses training, test and validation images by the names of the splits, or else draws the test images."""
    path, class_names = collection.path, collection.class_names
    for line in collection.describe():
        print(line, file=sys.stderr)
    train = _find(collection, settings.train_split, "train_split")
    test = _find(collection, settings.test_split, "test_split")
    if train and not test and settings.test_split == TEST:
        test = _find(collection, VALIDATION, "test_split")
    only = collection.splits[0] if len(collection.splits) == 1 else None
    usual = all(split_role(name) or not name for name in (settings.train_split, settings.test_split))
    draws = only is not None and test is None and usual and (train is only or not only.split)
    if only is not None and draws:
        train, test = _draw(collection, only, settings)
        validation = _find_validation(collection, settings, train, test)
    elif train is None or test is None:
        names = ", ".join(printable(examples.split) for examples in collection.splits) or "none, for it has no splits"
        field, missing = ("test", settings.test_split) if train else ("train", settings.train_split)
        raise UserError(f"{path} has no split {missing!r}: choose among {names} in data.{field}_split")
    else:
        train, test = (Chosen(part, np.arange(part.count), _labels(part)) for part in (train, test))
        print(f"training images: {train.examples.split}; test images: {test.examples.split}", file=sys.stderr)
        validation = _find_validation(collection, settings, train, test)
        used = [part.examples for part in (train, test, validation) if part is not None]
        others = [part for part in collection.splits if part not in used]
        if others:
            print_note(f"not used: {', '.join(f'{printable(part.split)} ({part.count:,} images)' for part in others)}")
        if train.examples is test.examples:
            print_warning("the test images are the training images, so the test accuracy says nothing")
    # A draw leaves training images of every class, unless images have several labels.
    if not collection.declared and not draws:
        parts, class_names = _keep_classes_of_training(collection, train, test, validation)
        train, test, validation = parts
    seen = _count_classes(test.labels, len(class_names))
    if absent := [name for name, count in zip(class_names, seen, strict=True) if not count]:
        others = f" and {len(absent) - 1:,} other classes" if len(absent) > 1 else ""
        print_warning(f"no test image shows {printable(absent[0])}{others}")
    if len(class_names) == 1:
        raise UserError(f"{path} has a single class, {class_names[0]}: give images of two classes or more")
    return train, test, validation, class_names


def _find_validation(collection: Collection, settings: DataSettings, train: Chosen, test: Chosen) -> Chosen | None:
    """Returns the validation images of the split that the settings name; None without any.

    Raises:
      UserError: there is no such split, or it is that of the training or test images.
    """
    name = settings.validation_split
    if not name:
        return None
    examples = _find(collection, name, "validation")
    if examples is None:
        names = ", ".join(printable(part.split) for part in collection.splits)
        raise UserError(
            f"{collection.path} has no split {name!r}: choose among {names} in data.validation, or give a fraction "
            "such as 0.1"
        )
    if examples is train.examples:
        raise refuse_overlap(name, f"the training images of {collection.path}", "a fraction such as 0.1")
    if examples is test.examples:
        raise refuse_test(name)
    print(f"validation images: {printable(examples.split)}", file=sys.stderr)
    return Chosen(examples, np.arange(examples.count), _labels(examples))


def _find(collection: Collection, name: str, field: str) -> Examples | None:
    """Returns the split of this name or of a usual spelling of it; None if there is none."""
    present = {examples.split: examples for examples in collection.splits}
    if name in present:
        return present[name]
    role = split_role(name)
    same = [split for split in present if role and split_role(split) == role]
    if len(same) > 1:
        raise UserError(f"{collection.path} has the splits {same[0]!r} and {same[1]!r}: name one in data.{field}")
    return present[same[0]] if same else None


def _draw(collection: Collection, examples: Examples, settings: DataSettings) -> tuple[Chosen, Chosen]:
    copies, assumed = (1, "")
    if collection.manifest:
        copies, assumed = find_copies([examples.name(index) for index in range(examples.count)], collection.manifest)
    groups = [group_name(examples.name(index), copies) for index in range(examples.count)] if copies > 1 else None
    labels = _labels(examples)
    strata, names = (labels, collection.class_names) if labels.ndim == 1 else (np.zeros(len(labels)), ("all",))
    in_test = draw_test(strata, names, groups, settings.test_fraction, settings.seed)
    whole = Chosen(examples, np.arange(examples.count), labels)
    whose = "each class" if labels.ndim == 1 else "the images"
    share = f"a random share of {settings.test_fraction:g} of {whose} (data.test_fraction)"
    print(f"test images: {np.count_nonzero(in_test):,}, {share}", file=sys.stderr)
    if copies > 1:
        print_note(f"the {copies} copies of an image stay together, in training or in testing")
    if assumed:
        print_note(assumed)
    return whole.take(np.flatnonzero(~in_test)), whole.take(np.flatnonzero(in_test))


def _keep_classes_of_training(
    collection: Collection, train: Chosen, test: Chosen, validation: Chosen | None
) -> tuple[tuple[Chosen, Chosen, Chosen | None], tuple[str, ...]]:
    """Leaves out classes that no training image shows.

    Raises:
      UserError: a test or validation image shows such a class.
    """
    total = len(collection.class_names)
    is_shown = _count_classes(train.labels, total) > 0
    for title, part in (("test", test), ("validation", validation)):
        if part is None:
            continue
        unknown = np.flatnonzero((_count_classes(part.labels, total) > 0) & ~is_shown)
        if len(unknown):
            label = int(unknown[0])
            has = part.labels == label if part.labels.ndim == 1 else part.labels[:, label] > 0
            image = collection.title(part.examples, int(part.indices[np.argmax(has)]))
            raise UserError(
                f"the {title} image {printable(image)} has the class {collection.class_names[label]!r}, which no "
                f"training image has: add one, or remove the {title} image"
            )
    kept = np.flatnonzero(is_shown)
    place = np.cumsum(is_shown, dtype=np.int32) - 1

    def renumber(part: Chosen) -> Chosen:
        labels = place[part.labels] if part.labels.ndim == 1 else part.labels[:, kept]
        return dataclasses.replace(part, labels=labels.astype(part.labels.dtype))

    parts = renumber(train), renumber(test), None if validation is None else renumber(validation)
    return parts, tuple(collection.class_names[label] for label in kept)


def _count_classes(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns the number of images of each class, int [classes], for labels of either form."""
    return np.bincount(labels, minlength=classes) if labels.ndim == 1 else labels.sum(axis=0, dtype=np.int64)


def _labels(examples: Examples) -> np.ndarray:
    assert examples.labels is not None
    return examples.labels
