"""Training images and test images of a folder: its splits by name, or a random split of its classes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.class_depth import printable
from ppvit_jax.data.copies import find_copies, group_name
from ppvit_jax.data.folders import FolderListing, LabeledFiles, SplitFolder, describe_left_out, list_folder
from ppvit_jax.data.listing_summary import print_summary
from ppvit_jax.data.manifest import Manifest
from ppvit_jax.data.splits import TEST, VALIDATION, split_role
from ppvit_jax.data.validation import FIELD, refuse_overlap, refuse_test
from ppvit_jax.errors import UserError

_MISSING = "name both folders in data.train_split and data.test_split"


def list_for_training(
    folder: Path, train_split: str, test_split: str, manifest: Manifest | None, validation_split: str = ""
) -> FolderListing:
    """Lists a folder; folders that have the names of the splits are splits.

    Raises:
      UserError: the folder or a folder inside cannot be read, or a link leads nowhere.
    """
    is_own = manifest is not None and manifest.folder == folder.absolute()
    unusual = [name for name in (train_split, test_split, validation_split) if name and not split_role(name)]
    return list_folder(folder, named=unusual, ignored=[manifests.NAME] if is_own else ())


def divide(
    listing: FolderListing,
    train_split: str,
    test_split: str,
    test_fraction: float,
    seed: int,
    manifest: Manifest | None,
    validation_split: str = "",
) -> tuple[LabeledFiles, LabeledFiles, tuple[str, ...]]:
    """Chooses the training images and the test images, and prints a summary on stderr.

    Args:
      listing: a folder with splits, or else with class folders.
      train_split, test_split: names of the splits. A usual spelling stands for the others: "train" for Training. A
        folder without a test split is tested on its validation split.
      test_fraction: without splits, the random share of each class to test on (rounded; at least one image, and never
        all). Copies of an image stay together.
      seed: seed of the random split.
      manifest: manifest of the folder, or None.
      validation_split: name of the split that `choose_validation` takes, which counts as used; "" for none.

    Returns:
      (path, class) of each training image, (path, class) of each test image, and the class names in ascending order.

    Raises:
      UserError: a split or a class is missing or empty, splits and classes cannot be told apart, the test images have a
        class that the training images lack, there is a single class, or a class has too few images to split.
    """
    folder = listing.root
    train_name, test_name = _find_names(listing, train_split, test_split)
    if (train_name is None) != (test_name is None):
        missing = test_split if train_name else train_split
        raise UserError(f"{folder} has a folder {train_name or test_name!r} but none named {missing!r}: {_MISSING}")
    if listing.fault:
        raise UserError(listing.fault)
    if train_name is None or test_name is None:
        train, test, class_names, notes = _draw(listing, test_fraction, seed, manifest)
    else:
        train, test, class_names, notes = _choose(listing, train_name, test_name, validation_split)
    if len(class_names) == 1:
        raise UserError(f"{folder} has a single class, {class_names[0]}: give images of two classes or more")
    print_summary(listing)
    for note in notes:
        print(note, file=sys.stderr)
    return train, test, class_names


def choose_validation(
    listing: FolderListing, validation_split: str, train_split: str, test_split: str, class_names: tuple[str, ...]
) -> LabeledFiles:
    """Chooses the validation images of a folder with splits.

    Args:
      listing: the folder.
      validation_split, train_split, test_split: names of the splits, as for `divide`.
      class_names: names of the classes, from `divide`.

    Returns:
      (path, class) of each image.

    Raises:
      UserError: the split is missing or empty, is the training or test split, or has a class that they lack.
    """
    train_name, test_name = _find_names(listing, train_split, test_split)
    name = _find_split(listing, validation_split, "validation")
    if name is None:
        raise UserError(
            f"{FIELD} is {validation_split!r}, but {listing.root} has no such folder: give another, or a fraction of "
            "the training images such as 0.1"
        )
    if name == train_name:
        raise refuse_overlap(validation_split, f"the training images {listing.root / name}", "a fraction such as 0.1")
    if name == test_name:
        raise refuse_test(validation_split)
    files, names = label_split(listing, _get_split(listing, name))
    if unknown := sorted(set(names) - set(class_names)):
        raise UserError(
            f"{listing.root / name} has the class {unknown[0]!r}, which the training images lack: add it there or "
            "remove it here"
        )
    print(f"validation images: {printable(name)}", file=sys.stderr)
    labels = [class_names.index(name) for name in names]
    return [(path, labels[label]) for path, label in files]


def _find_names(listing: FolderListing, train_split: str, test_split: str) -> tuple[str | None, str | None]:
    """Returns the folders of the training and the test split; a validation split stands in for a missing test split."""
    train_name = _find_split(listing, train_split, "train_split")
    test_name = _find_split(listing, test_split, "test_split")
    if train_name and not test_name and test_split == TEST:
        test_name = _find_split(listing, VALIDATION, "test_split")
    return train_name, test_name


def _find_split(listing: FolderListing, name: str, field: str) -> str | None:
    """Returns the name of the folder that is the split `name`; None if there is none."""
    present = {folder for folder in listing.folders if "/" not in folder}
    if name in present:
        return name
    role = split_role(name)
    same = sorted(folder for folder in present if listing.has_splits and role and split_role(folder) == role)
    if len(same) > 1:
        raise UserError(f"{listing.root} has the folders {same[0]!r} and {same[1]!r}: name one of them in data.{field}")
    if not role and name:
        raise UserError(f"{listing.root} has no folder {name!r}: correct data.{field}")
    return same[0] if same else None


def _choose(
    listing: FolderListing, train_name: str, test_name: str, validation_split: str
) -> tuple[LabeledFiles, LabeledFiles, tuple[str, ...], list[str]]:
    train, class_names = label_split(listing, _get_split(listing, train_name))
    test, test_names = label_split(listing, _get_split(listing, test_name))
    unknown = sorted(set(test_names) - set(class_names))
    if unknown:
        raise UserError(
            f"{listing.root / test_name} has the class {unknown[0]!r}, which {listing.root / train_name} lacks: "
            "add it there or remove it here"
        )
    notes = [f"training images: {printable(train_name)}; test images: {printable(test_name)}"]
    validation_name = _find_split(listing, validation_split, "validation") if validation_split else None
    others = [split for split in listing.splits if split.name not in (train_name, test_name, validation_name)]
    if others:
        texts = [f"{printable(split.name)} ({split.count:,} images)" for split in others]
        notes.append(f"note: not used: {', '.join(texts)}")
    if absent := sorted(set(class_names) - set(test_names)):
        others = f" and {len(absent) - 1:,} other classes" if len(absent) > 1 else ""
        notes.append(f"warning: no test image shows {printable(absent[0])}{others}")
    if train_name == test_name:
        notes.append("warning: the test images are the training images, so the test accuracy says nothing")
    labels = [class_names.index(name) for name in test_names]
    return train, [(path, labels[label]) for path, label in test], class_names, notes


def _get_split(listing: FolderListing, name: str) -> SplitFolder:
    for split in listing.splits:
        if split.name == name:
            return split
    inside = [part for part in listing.left_out if f"{part.folder}/".startswith(f"{name}/")]
    others = f" ({describe_left_out(inside)})" if inside else ""
    raise UserError(f"{listing.root / name} has no images{others}: add some, or name another folder in data")


def label_split(listing: FolderListing, split: SplitFolder) -> tuple[LabeledFiles, tuple[str, ...]]:
    """Returns the path and the class of each image of a split, and the class names.

    Raises:
      UserError: the split has no class folders, or a class folder has no image.
    """
    above = listing.root / split.name
    if not split.classes:
        raise UserError(f"{above} has no class folders: put the images of each class in a folder of its own")
    for folder, inside in listing.folders_without_images().items():
        if folder.rpartition("/")[0] == split.name:
            others = f" ({describe_left_out(inside)})" if inside else ""
            raise UserError(
                f"the class folder {listing.root / folder} has no image that can be read{others}: add one or remove "
                "the folder"
            )
    class_names = tuple(sorted(split.classes))
    files = [
        (listing.root / listing.images[position], label)
        for label, name in enumerate(class_names)
        for position in split.classes[name]
    ]
    return files, class_names


def _draw(
    listing: FolderListing, test_fraction: float, seed: int, manifest: Manifest | None
) -> tuple[LabeledFiles, LabeledFiles, tuple[str, ...], list[str]]:
    """Splits each class at random, and keeps the copies of an image together."""
    files, class_names = label_split(listing, listing.splits[0])
    paths = [listing.images[number] for name in class_names for number in listing.splits[0].classes[name]]
    copies, assumed = find_copies(paths, manifest)
    groups = [group_name(path, copies) for path in paths] if copies > 1 else paths
    labels = np.array([label for _, label in files])
    in_test = draw_test(labels, class_names, groups, test_fraction, seed)
    train = [file for file, test in zip(files, in_test, strict=True) if not test]
    test = [file for file, test in zip(files, in_test, strict=True) if test]
    notes = [f"test images: {len(test):,}, a random share of {test_fraction:g} of each class (data.test_fraction)"]
    if copies > 1:
        notes.append(f"note: the {copies} copies of an image stay together, in training or in testing")
    if assumed:
        notes.append(f"note: {assumed}")
    return train, test, class_names, notes


def draw_test(
    labels: np.ndarray, class_names: Sequence[str], groups: Sequence[str] | None, test_fraction: float, seed: int
) -> np.ndarray:
    """Draws the same share of each class to test on, rounded; at least one image, and never all.

    Args:
      labels: the class of each image, int [n].
      class_names: the name of class i at index i; a class without images is left out.
      groups: a name for each image; images of one name stay together. None for images that stand alone.
      test_fraction: the share.
      seed: seed of the draw.

    Returns:
      True for each image to test on, bool [n].

    Raises:
      UserError: the share is not between 0 and 1, or a class has too few images.
    """
    if not 0 < test_fraction < 1:
        raise UserError(f"data.test_fraction is {test_fraction}: give a number between 0 and 1, such as 0.2")
    in_test = np.zeros(len(labels), bool)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    for label, class_name in enumerate(class_names):
        members = np.flatnonzero(labels == label)
        if not len(members):
            continue
        first = _first_of_groups([groups[member] for member in members.tolist()]) if groups else np.arange(len(members))
        originals = members[np.unique(first)]
        if len(originals) < 2:
            raise UserError(f"the class {class_name!r} has 1 image, but a split needs 2: add one or remove the class")
        count = min(max(round(len(originals) * test_fraction), 1), len(originals) - 1)
        in_test[generator.permutation(originals)[:count]] = True
        in_test[members] = in_test[members[first]]
    return in_test


def _first_of_groups(groups: Sequence[str]) -> np.ndarray:
    """Returns the position of the first member of each one's group: int64 [n]."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(group, position) for position, group in enumerate(groups)])
