"""Typed and checked settings of a data set: the fields of `config.data`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ppvit_jax.data.images import MAX_PIXELS_LIMIT, RESIZE_NAMES, RESIZES, ImageReader, Resize
from ppvit_jax.data.source import from_text, subset
from ppvit_jax.data.validation import parse_fraction
from ppvit_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Settings that every data source understands.

    Attributes:
      name: the tfds name, such as "cifar10" or "imagenette/320px-v2"; "photographs" or "digits" for embedded.
      dir: the image folder. For tfds, the folder of data sets or of one version; "" for tfds' default. For Parquet,
        WebDataset and CSV, a folder, a file, or a pattern of files.
      train_split, test_split: names of splits, or of subfolders.
      test_fraction: share of each class to test on, for an image folder without these subfolders.
      resize: how to resize images of varying size; see `ImageReader`.
      max_pixels: images with more pixels are rejected.
      train_examples, test_examples: sizes of random subsets; 0 for all examples.
      in_memory: True, False or "auto", which means True if the images take less than 4 GiB when they are decoded, and
        either have one size or come from Parquet.
      image_size: height and width to which images of varying size are resized. Images of one fixed size (CIFAR,
        Tiny-ImageNet, embedded ones) keep it and are resized on the device.
      seed: seed of the subsets, and of the split by `test_fraction`.
      download: True downloads a data set of `cifar.NAMES` that is not prepared.
      validation: name of the split or subfolder of validation images, a fraction of the training images, or "".
      image_column, label_column: names of columns of a Parquet or CSV file; "" for the usual names.
    """

    name: str
    dir: str
    train_split: str
    test_split: str
    test_fraction: float
    resize: Resize
    max_pixels: int
    train_examples: int
    test_examples: int
    in_memory: bool | str
    image_size: int
    seed: int
    download: bool = False
    validation: str = ""
    image_column: str = ""
    label_column: str = ""

    @classmethod
    def from_config(cls, data: ConfigDict, image_size: int, seed: int) -> DataSettings:
        """Reads the fields of a configuration.

        Raises:
          UserError: a value is wrong.
        """
        names = {field.name for field in dataclasses.fields(cls)} - {"image_size", "seed"}
        # Configurations of former versions lack the fields that have a default.
        optional = {field.name for field in dataclasses.fields(cls) if field.default is not dataclasses.MISSING}
        fields: dict[str, Any] = {name: getattr(data, name) for name in names if name not in optional or name in data}
        fields["validation"] = str(fields.get("validation", ""))
        fields["in_memory"] = from_text(fields["in_memory"])
        fields["resize"] = RESIZE_NAMES.get(str(data.resize), data.resize)
        if fields["resize"] not in RESIZES:
            check_choice("resize", data.resize, tuple(RESIZE_NAMES))
        settings = cls(**fields, image_size=image_size, seed=seed)
        check_choice("in_memory", settings.in_memory, ("auto", True, False))
        if image_size < 1:
            raise UserError(f"the image size is {image_size}: give at least 1")
        if seed < 0:
            raise UserError(f"the seed is {seed}: give a number from 0 on")
        if not 1 <= settings.max_pixels <= MAX_PIXELS_LIMIT:
            raise UserError(
                f"data.max_pixels is {settings.max_pixels}: give 1 to {MAX_PIXELS_LIMIT}, Pillow's own limit"
            )
        return settings

    @property
    def validation_split(self) -> str:
        """Name of the validation split that a source has to open; "" for none, and for a fraction."""
        return self.validation if parse_fraction(self.validation) is None else ""

    @property
    def reader(self) -> ImageReader:
        """Reader of images of varying size."""
        return ImageReader(self.image_size, self.resize, self.max_pixels)

    def choose_train(self, count: int) -> np.ndarray:
        """Draws the training examples to use; see `ppvit_jax.data.source.subset`."""
        return subset(count, self.train_examples, self.seed, "data.train_examples")

    def choose_test(self, count: int) -> np.ndarray:
        """Draws the test examples to use; see `ppvit_jax.data.source.subset`."""
        return subset(count, self.test_examples, self.seed, "data.test_examples")


def check_choice(field: str, value: object, choices: tuple[object, ...]) -> None:
    """Raises UserError unless a field's value is one of the choices."""
    if value not in choices:
        raise UserError(f"data.{field} is {value!r}: choose among {', '.join(map(repr, choices))}")
