"""Data sets by configuration, and the table of data sources."""

from __future__ import annotations

from collections.abc import Callable

from ml_collections import ConfigDict

from ppvit_jax.data import embedded, image_folder, tfds_source
from ppvit_jax.data.images import MAX_PIXELS_LIMIT, RESIZES
from ppvit_jax.data.source import Dataset, from_text
from ppvit_jax.errors import UserError

# A source is a file with a function (data, image_size, seed) -> Dataset, whose arguments `load` explains and checks.
SOURCES: dict[str, Callable[[ConfigDict, int, int], Dataset]] = {
    "tfds": tfds_source.load,
    "image_folder": image_folder.load,
    "embedded": embedded.load,
}


def load(data: ConfigDict, image_size: int, seed: int = 0) -> Dataset:
    """Opens the data set that a configuration names.

    Args:
      data: the fields
        source: "tfds" (a folder prepared by tensorflow-datasets), "image_folder" (class folders of image files) or
          "embedded" (scikit-learn's digits).
        name: the tfds name, such as "cifar10" or "imagenette/320px-v2"; "digits" for embedded.
        dir: the folder; for tfds the folder of data sets or one version's, empty for tfds' default.
        train_split, test_split: names of splits, or of sub-folders.
        test_fraction: the part of each class to test on, for an image folder without these sub-folders.
        resize: "centre_crop" or "squash", for images of varying size.
        max_pixels: images of more pixels are rejected.
        train_examples, test_examples: sizes of random subsets, 0 for all.
        in_memory: True, False or "auto": if the images are of one size and take less than 4 GiB.
      image_size: height and width to resize images of varying size to. Images of one fixed size (CIFAR,
        Tiny-ImageNet, the digits) keep it, to be resized on the device.
      seed: the seed of the subsets, and of the split by `test_fraction`.

    Returns:
      The data set; its images are uint8 [height, width, 3].

    Raises:
      UserError: a wrong field, or missing or damaged data.
    """
    for field, choices in (("source", tuple(SOURCES)), ("resize", RESIZES), ("in_memory", ("auto", True, False))):
        value = getattr(data, field)
        if from_text(value) not in choices:
            raise UserError(f"data.{field} is {value!r}: choose among {', '.join(map(repr, choices))}")
    if image_size < 1:
        raise UserError(f"the image size is {image_size}: give at least 1")
    if seed < 0:
        raise UserError(f"the seed is {seed}: give a number from 0 on")
    if not 1 <= data.max_pixels <= MAX_PIXELS_LIMIT:
        raise UserError(f"data.max_pixels is {data.max_pixels}: give 1 to {MAX_PIXELS_LIMIT}, Pillow's own limit")
    return SOURCES[data.source](data, image_size, seed)
