"""One split of labeled images, ready to be evaluated: of a folder, of a tfds data set, or of files of other formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ppvit_jax.data import image_folder, tfds_source
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.class_depth import printable
from ppvit_jax.data.folders import list_folder
from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.labeled.examples import Collection
from ppvit_jax.data.labeled.opening import LabeledSplit, open_split
from ppvit_jax.data.listing_summary import check_images, print_summary
from ppvit_jax.data.manifest import Manifest
from ppvit_jax.data.splits import TEST, split_role
from ppvit_jax.data.train_and_test import label_split
from ppvit_jax.errors import UserError


def choose_split(names: Sequence[str], requested: str, where: str) -> str:
    """Chooses a split: the requested one or a usual spelling of it; without a request the only one, or the test split.

    Args:
      names: the splits of an input, at least one.
      requested: value of --split; "" for none.
      where: the input, for messages.

    Raises:
      UserError: there is no such split, or the choice is open.
    """
    if requested in names or (not requested and len(names) == 1):
        return requested if requested in names else names[0]
    role = split_role(requested) if requested else TEST
    same = [name for name in names if role and split_role(name) == role]
    if len(same) == 1:
        return same[0]
    listed = ", ".join(printable(name) for name in names)
    if list(names) == [""]:
        raise UserError(f"{where} has no splits, but --split is {requested!r}: leave it out")
    problem = f"no split {requested!r}" if requested else "several splits"
    raise UserError(f"{where} has {problem}: choose one of {listed} by --split")


def open_folder_split(path: Path, split: str, reader: ImageReader, manifest: Manifest | None) -> LabeledSplit:
    """Opens a folder of class folders, or one split of a folder with splits, and prints a summary on stderr.

    Args:
      path: the folder.
      split: value of --split; "" for the only one or the test split.
      reader: decodes the images, to one size.
      manifest: the manifest that describes the folder; files are compared with it.

    Raises:
      UserError: there are no images in class folders, no such split, or the files do not match the manifest.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder: give a folder with a folder of images for each class")
    is_own = manifest is not None and manifest.folder == path.absolute()
    named = [split] if split and not split_role(split) else []
    listing = list_folder(path, named=named, ignored=[manifests.NAME] if is_own else ())
    check_images(listing)
    if manifest is not None:
        manifest.check_listing(listing.images, path)
    listing.check_labels()
    name = choose_split([part.name for part in listing.splits], split, str(path))
    files, class_names = label_split(listing, next(part for part in listing.splits if part.name == name))
    print_summary(listing)
    source = image_folder.make_source(files, reader, in_memory=False, manifest=manifest)
    return LabeledSplit(source, class_names, lambda index: str(files[index][0]))


def open_tfds_split(path: Path, split: str, reader: ImageReader, manifest: Manifest | None) -> LabeledSplit:
    """Opens one split of a data set that tensorflow-datasets has prepared.

    Args:
      path: the version folder.
      split: value of --split, in tfds' notation; "" for the only one or the test split.
      reader: decodes images of varying size.
      manifest: its manifest; files are compared with it.

    Raises:
      UserError: there is no such split, or the data set is damaged.
    """
    if manifest is not None:
        manifest.check_files()
    if not split or not set(split) & set("[+:"):
        split = choose_split(tfds_source.split_names(path), split, str(path))
    records = tfds_source.Records(path, split, "--split")
    source = tfds_source.make_source(records, np.arange(len(records)), reader, in_memory=False)
    return LabeledSplit(source, records.class_names, lambda index: f"image {index} of {path} ({split})")


def open_collection_split(collection: Collection, split: str, reader: ImageReader) -> LabeledSplit:
    """Opens one split of Parquet, WebDataset or CSV files; see `open_folder_split`."""
    names = [examples.split for examples in collection.splits]
    return open_split(collection, choose_split(names, split, str(collection.path)), reader)
