"""Data sets that tensorflow-datasets has prepared as array_record files, read without TensorFlow."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppvit_jax.data import images
from ppvit_jax.data.progress import Progress
from ppvit_jax.data.source import ArraySource, StreamSource, map_chunks, subset
from ppvit_jax.errors import UserError

PREPARED_HERE = ("cifar10", "cifar100")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_IN_MEMORY_BYTES = 4 * 2**30


def data_root(data_dir: str) -> Path:
    """The folder of prepared data sets: `data_dir`, or tfds' default if that is empty."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def find_prepared(name: str, data_dir: str) -> Path:
    """Finds the folder ROOT/NAME/VERSION of a prepared data set, of several versions the newest.

    Args:
        name: such as "cifar10", "imagenette/320px-v2" or, to fix the version, "cifar10:3.0.2".
        data_dir: ROOT; or a version folder itself; empty for tfds' default.

    Raises:
        UserError: there is none, or the folder holds another data set.
    """
    root = data_root(data_dir)
    name, _, version = name.partition(":")
    if not name:
        raise UserError("data.name is empty: give the name of a data set, such as 'cifar10'")
    if (root / "dataset_info.json").is_file():
        found = _name_in(root)
        if found != name.split("/")[0]:
            raise UserError(f"{root} holds the data set {found!r}, not {name!r}: correct data.name or data.dir")
        return root
    versions = [path for path in _prepared_in(root / name) if version in ("", path.name)]
    if versions:
        return max(versions, key=lambda path: [int(part) for part in path.name.split(".")])
    variants = sorted({path.parent.name for path in _prepared_in(root / name, "*/")})
    if variants:
        choices = ", ".join(f"{name}/{variant}" for variant in variants)
        raise UserError(f"{root / name} holds several variants: choose one in data.name ({choices})")
    command = (
        f"python -m ppvit_jax prepare {name} --data-dir {root}"
        if name in PREPARED_HERE
        else f"tfds build {name} --data_dir={root} --file_format=array_record"
    )
    wanted = f"{name!r} version {version}" if version else repr(name)
    raise UserError(
        f"no prepared data set {wanted} in {root}: prepare it with `{command}`, or correct data.dir (--data-dir)"
    )


def split_names(folder: Path) -> list[str]:
    """The splits of a prepared data set, in its own order.

    Raises:
        UserError: the folder is damaged.
    """
    import tensorflow_datasets as tfds

    try:
        return list(tfds.builder_from_directory(folder).info.splits)
    except Exception as error:  # tfds documents no type for a damaged folder
        raise _damaged(str(folder), error) from error


class Records:
    """One split of a prepared data set, its images still encoded.

    Attributes:
        name: the data set's name.
        native_shape: (height, width) of the images, None if they differ.
        class_names: the name of class i at place i.
    """

    def __init__(self, folder: Path, split: str):
        """Opens a split.

        Raises:
            UserError: the folder is damaged, of another file format, without images and labels, or without
                the split.
        """
        import tensorflow_datasets as tfds

        self._what = f"{folder} ({split})"
        try:
            builder: Any = tfds.builder_from_directory(folder)
            features: Any = builder.info.features
            file_format = builder.info.file_format
            splits = sorted(builder.info.splits)
        except Exception as error:  # tfds documents no type for a damaged folder
            raise _damaged(self._what, error) from error
        if file_format is None or file_format.value != "array_record":
            raise UserError(
                f"{folder} is not in the array_record format: prepare it again with `tfds build "
                f"{builder.name} --file_format=array_record`"
            )
        known = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
        image, label = known.get("image"), known.get("label")
        if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
            raise UserError(f"{folder} lacks the features 'image' and 'label': choose an image classification set")
        try:
            self._data: Any = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        except ValueError as error:
            raise UserError(
                f"{folder} has no split {split!r}: choose among {', '.join(splits)} in data.train_split and "
                "data.test_split"
            ) from error
        except Exception as error:  # array_record raises RuntimeError and more on a damaged file
            raise _damaged(self._what, error) from error
        self.name: str = builder.name
        self.class_names = tuple(label.names or map(str, range(label.num_classes or 0)))
        shape: Any = image.shape
        height, width = shape[:2]
        self.native_shape = None if height is None or width is None else (int(height), int(width))

    def __len__(self) -> int:
        return len(self._data)

    def read(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The records, each with "image" (bytes of a file) and "label" (int).

        Raises:
            UserError: a file is damaged.
        """
        try:
            return self._data.__getitems__(indices)
        except Exception as error:  # as above
            raise _damaged(self._what, error) from error

    def describe(self, index: int) -> str:
        return f"image {index} of {self._what}"


def make_source(
    records: Records,
    *,
    image_size: int,
    resize: images.Resize,
    max_pixels: int,
    in_memory: bool | str,
    examples: int = 0,
    seed: int = 0,
    what: str = "examples",
) -> ArraySource | StreamSource:
    """A source of the records, or of a random subset of them.

    Images of one fixed size keep it; others are resized to image_size x image_size. With in_memory "auto",
    those of a fixed size are decoded once into memory if they take less than 4 GiB. Images not in memory are
    decoded at each access, after one pass over the records for the labels.

    Raises:
        UserError: a damaged record, a wrong subset.
    """
    chosen = subset(len(records), examples, seed, what)
    shape = (*(records.native_shape or (image_size, image_size)), 3)
    if in_memory == "auto":
        in_memory = records.native_shape is not None and len(chosen) * math.prod(shape) < _IN_MEMORY_BYTES
    labels = np.empty(len(chosen), np.int32)
    array = np.empty((len(chosen) if in_memory else 0, *shape), np.uint8)

    def decode(index: int, data: bytes) -> np.ndarray:
        name = records.describe(index)
        image = images.decode(data, name=name, max_pixels=max_pixels)
        if records.native_shape is None:
            return images.fit(image, image_size, resize)
        if (image.height, image.width) != records.native_shape:
            raise UserError(
                f"{name} is {image.height} x {image.width}, but its data set says "
                f"{' x '.join(map(str, records.native_shape))}: prepare it again"
            )
        return np.asarray(image)

    def work(chunk: Sequence[int]) -> None:
        indices = [int(chosen[position]) for position in chunk]
        for position, index, record in zip(chunk, indices, records.read(indices), strict=True):
            labels[position] = record["label"]
            if in_memory:
                array[position] = decode(index, record["image"])

    def fetch(position: int) -> np.ndarray:
        index = int(chosen[position])
        return decode(index, records.read([index])[0]["image"])

    task = f"{'decoding' if in_memory else 'reading the labels of'} {records.name}"
    map_chunks(len(chosen), work, Progress(task, len(chosen)))
    return ArraySource(array, labels) if in_memory else StreamSource(labels, shape, fetch)


def _prepared_in(folder: Path, between: str = "") -> list[Path]:
    # A folder that tfds has not finished is named otherwise ("incomplete...").
    found = [path.parent for path in folder.glob(f"{between}*/dataset_info.json")]
    return [path for path in found if _VERSION.fullmatch(path.name)]


def _name_in(folder: Path) -> str:
    try:
        return json.loads((folder / "dataset_info.json").read_text())["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(str(folder), error) from error


def _damaged(what: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(f"cannot read {what} ({reason}): the files are damaged, prepare the data set again")
