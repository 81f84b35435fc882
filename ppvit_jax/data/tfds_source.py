"""Data source "tfds": array_record files prepared by tensorflow-datasets, read without TensorFlow."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppvit_jax.data import cifar
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.progress import Progress
from ppvit_jax.data.settings import DataSettings
from ppvit_jax.data.source import IN_MEMORY_BYTES, ArraySource, Dataset, StreamSource, map_chunks
from ppvit_jax.data.tfds_content import check_slices, check_validation, digest_records
from ppvit_jax.errors import UserError, print_note
from ppvit_jax.files import local_path

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def load(settings: DataSettings) -> Dataset:
    """Opens the prepared data set `settings.name`, and compares its files with its manifest, if it has one.

    With `settings.download`, a data set of `cifar.NAMES` that is missing is downloaded and prepared.

    Raises:
      UserError: the data set is missing or damaged, or a split or a subset is wrong.
    """
    if settings.download:
        _prepare_missing(settings.name, data_root(settings.dir))
    path = find_prepared(settings.name, settings.dir)
    manifest = manifests.read(path)
    if manifest:
        manifest.check_files()
    # Both splits are opened first, so that a misspelled test split is reported before the training images are decoded.
    train, test = Records(path, settings.train_split), Records(path, settings.test_split)
    splits = [settings.train_split, settings.test_split]
    validation = None
    if settings.validation_split:
        validation = Records(path, settings.validation_split, "data.validation")
        check_validation(path, settings.validation_split, *splits)
        splits.append(settings.validation_split)
    copies = manifest.header.copies if manifest else 1
    if copies > 1:
        check_slices(path, splits, copies)
    chosen_train, chosen_test = settings.choose_train(len(train)), settings.choose_test(len(test))
    parts = [(train, chosen_train), (test, chosen_test)]
    if validation is not None:
        parts.append((validation, np.arange(len(validation))))
    train_source, test_source, *others = [
        make_source(records, chosen, settings.reader, in_memory=settings.in_memory) for records, chosen in parts
    ]
    return Dataset(
        train.name,
        train_source,
        test_source,
        train.class_names,
        manifest,
        digest_records(path, manifest),
        resize="" if manifest or train.native_shape else settings.resize,
        validation=others[0] if others else None,
        # The copies of an image are consecutive records.
        train_groups=chosen_train // copies if copies > 1 else None,
    )


def data_root(data_dir: str) -> Path:
    """Returns the folder of prepared data sets: `data_dir`, or tfds' default if it is empty."""
    return local_path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def find_prepared(name: str, data_dir: str) -> Path:
    """Finds the folder ROOT/NAME/VERSION of a prepared data set, with the newest version unless the name fixes one.

    Args:
      name: the data set, such as "cifar10", "imagenette/320px-v2" or, with a fixed version, "cifar10:3.0.2".
      data_dir: ROOT, or a version folder itself; "" for tfds' default.

    Raises:
      UserError: there is no such data set, or the folder holds another one.
    """
    root = data_root(data_dir)
    name, _, version = name.partition(":")
    if not name:
        raise UserError("data.name is empty: give the name of a data set, such as 'cifar10'")
    if (root / "dataset_info.json").is_file():
        present = _read_name(root)
        if present != name.split("/")[0]:
            raise UserError(f"{root} holds the data set {present!r}, not {name!r}: correct data.name or data.dir")
        return root
    versions = [path for path in _list_prepared(root / name) if version in ("", path.name)]
    if versions:
        return max(versions, key=lambda path: [int(part) for part in path.name.split(".")])
    variants = sorted({path.parent.name for path in _list_prepared(root / name, "*/")})
    if variants:
        choices = ", ".join(f"{name}/{variant}" for variant in variants)
        raise UserError(f"{root / name} holds several variants: choose one in data.name ({choices})")
    command = (
        f"ppvit prepare {name} --data-dir {root}"
        if name in cifar.NAMES
        else f"tfds build {name} --data_dir={root} --file_format=array_record"
    )
    wanted = f"{name!r} version {version}" if version else repr(name)
    raise UserError(
        f"no prepared data set {wanted} in {root}: prepare it with `{command}`, or correct data.dir (--data-dir)"
    )


def split_names(folder: Path) -> list[str]:
    """Returns the names of a prepared data set's splits, in the order of the data set.

    Raises:
      UserError: the folder is damaged.
    """
    import tensorflow_datasets as tfds

    try:
        return list(tfds.builder_from_directory(folder).info.splits)
    except Exception as error:  # tfds documents no exception type for a damaged folder
        raise _damaged(str(folder), error) from error


class Records:
    """Split of a prepared data set, with encoded images.

    Attributes:
      name: the data set's name.
      native_shape: (height, width) of the images; None if it varies.
      class_names: the name of class i at index i.
    """

    def __init__(self, folder: Path, split: str, field: str = "data.train_split and data.test_split"):
        """Opens a split.

        Args:
          folder: the folder of a version.
          split: the split, in tfds' notation.
          field: setting that names the split, for messages.

        Raises:
          UserError: the folder is damaged, has another file format, or lacks images and labels or the split.
        """
        import tensorflow_datasets as tfds

        self._title = f"{folder} ({split})"
        try:
            builder: Any = tfds.builder_from_directory(folder)
            features: Any = builder.info.features
            file_format = builder.info.file_format
            splits = sorted(builder.info.splits)
        except Exception as error:  # tfds documents no exception type for a damaged folder
            raise _damaged(self._title, error) from error
        if file_format is None or file_format.value != "array_record":
            raise UserError(
                f"{folder} is not in the array_record format: prepare it again with `tfds build "
                f"{builder.name} --file_format=array_record`"
            )
        by_name = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
        image, label = by_name.get("image"), by_name.get("label")
        if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
            raise UserError(f"{folder} lacks the features 'image' and 'label': choose an image classification set")
        try:
            self._data: Any = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        except ValueError as error:
            raise UserError(f"{folder} has no split {split!r}: choose among {', '.join(splits)} in {field}") from error
        except Exception as error:  # array_record raises RuntimeError and more on a damaged file
            raise _damaged(self._title, error) from error
        self.name: str = builder.name
        self.class_names = tuple(label.names or map(str, range(label.num_classes or 0)))
        if len(set(self.class_names)) < len(self.class_names):
            raise _damaged(self._title, ValueError("two of its classes have the same name"))
        shape: Any = image.shape
        height, width = shape[:2]
        self.native_shape = None if height is None or width is None else (int(height), int(width))

    def __len__(self) -> int:
        return len(self._data)

    def read(self, indices: Sequence[int]) -> list[tuple[bytes, int]]:
        """Reads the records with these indices.

        Returns:
          (encoded image, class) of each record.

        Raises:
          UserError: a file is damaged.
        """
        try:
            read = [(record["image"], int(record["label"])) for record in self._data.__getitems__(indices)]
            if labels := {label for _, label in read} - set(range(len(self.class_names))):
                raise ValueError(f"it has the class {min(labels)}, but the names of {len(self.class_names)} classes")
        except Exception as error:  # array_record, as in __init__
            raise _damaged(self._title, error) from error
        return read

    def decode(self, index: int, content: bytes, reader: ImageReader) -> np.ndarray:
        """Decodes the image of a record. Images of one fixed size keep it; others are resized by the reader.

        Args:
          index: the record's index, for messages.
          content: the encoded image.
          reader: decodes and resizes the image.

        Returns:
          uint8 [height, width, 3].

        Raises:
          UserError: the image cannot be read, or its size is not the one that the data set states.
        """
        name = f"image {index} of {self._title}"
        if self.native_shape is None:
            return reader.decode(content, name)
        image = ImageReader(None, reader.resize, reader.max_pixels).decode(content, name)
        if image.shape[:2] != self.native_shape:
            raise UserError(
                f"{name} is {' x '.join(map(str, image.shape[:2]))}, but its data set says "
                f"{' x '.join(map(str, self.native_shape))}: prepare it again"
            )
        return image


def make_source(
    records: Records, chosen: np.ndarray, reader: ImageReader, *, in_memory: bool | str
) -> ArraySource | StreamSource:
    """Creates a source of some of the records.

    Images of one fixed size keep it; others are resized by the reader. In memory, images are decoded once. Otherwise
    one pass over the records reads the labels, and images are decoded at each access.

    Args:
      records: the split.
      chosen: int [n], the indices of the records.
      reader: decodes the images.
      in_memory: True, False or "auto", which means True if the images have one size and take less than 4 GiB.

    Raises:
      UserError: a record is damaged.
    """
    if records.native_shape is None:
        assert reader.image_size is not None
        shape = (reader.image_size, reader.image_size, 3)
    else:
        shape = (*records.native_shape, 3)
    if in_memory == "auto":
        in_memory = records.native_shape is not None and len(chosen) * math.prod(shape) < IN_MEMORY_BYTES
    labels = np.empty(len(chosen), np.int32)
    array = np.empty((len(chosen) if in_memory else 0, *shape), np.uint8)

    def read_chunk(chunk: Sequence[int]) -> None:
        indices = [int(chosen[position]) for position in chunk]
        for position, index, (content, label) in zip(chunk, indices, records.read(indices), strict=True):
            labels[position] = label
            if in_memory:
                array[position] = records.decode(index, content, reader)

    def fetch(position: int) -> np.ndarray:
        index = int(chosen[position])
        return records.decode(index, records.read([index])[0][0], reader)

    activity = f"{'decoding' if in_memory else 'reading the labels of'} {records.name}"
    map_chunks(len(chosen), read_chunk, Progress(activity, len(chosen)))
    return ArraySource(array, labels) if in_memory else StreamSource(labels, shape, fetch)


def _prepare_missing(name: str, root: Path) -> None:
    if name in cifar.NAMES and not _list_prepared(root / name) and not (root / "dataset_info.json").is_file():
        print_note(f"{name} is not in {root}, and is downloaded to it")
        cifar.prepare(name, root)


def _list_prepared(folder: Path, between: str = "") -> list[Path]:
    # A folder that tfds has not finished has another name ("incomplete...").
    folders = [path.parent for path in folder.glob(f"{between}*/dataset_info.json")]
    return [path for path in folders if _VERSION.fullmatch(path.name)]


def _read_name(folder: Path) -> str:
    try:
        return json.loads((folder / "dataset_info.json").read_text())["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(str(folder), error) from error


def _damaged(title: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(f"cannot read {title} ({reason}): the files are damaged, prepare the data set again")
