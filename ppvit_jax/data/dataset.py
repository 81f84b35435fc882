"""From the configuration to a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_collections

from ppvit_jax.data import embedded, folder, images, manifest, tfds_source
from ppvit_jax.data.source import ArraySource, Dataset, from_text, subset
from ppvit_jax.errors import UserError

_SOURCES = ("tfds", "image_folder", "embedded")
_RESIZES = ("centre_crop", "squash")


def load(data: ml_collections.ConfigDict, image_size: int, seed: int = 0) -> Dataset:
    """Opens the data set that a configuration names.

    Args:
        data: the fields
            source: "tfds" (a folder prepared by tensorflow-datasets), "image_folder" (class folders of image
                files) or "embedded" (scikit-learn's digits).
            name: the tfds name, such as "cifar10" or "imagenette/320px-v2"; "digits" for embedded.
            dir: the folder; for tfds the folder of data sets or one version's, empty for tfds' default.
            train_split, test_split: names of splits, or of sub-folders.
            test_fraction: the part of each class to test on, for an image folder without these sub-folders.
            resize: "centre_crop" or "squash", for images of varying size.
            max_pixels: images of more pixels are refused.
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
    _check(data, image_size, seed)
    if data.source == "embedded":
        return _load_embedded(data, seed)
    if data.source == "image_folder":
        return _load_folder(data, image_size, seed)
    return _load_tfds(data, image_size, seed)


def _load_tfds(data: Any, image_size: int, seed: int) -> Dataset:
    path = tfds_source.find_prepared(data.name, data.dir)
    found = manifest.read(path)
    if found:
        found.check_files()
    # Both are opened first: a misspelt test split should not wait for the training images to be decoded.
    train, test = tfds_source.Records(path, data.train_split), tfds_source.Records(path, data.test_split)
    train_source, test_source = [
        tfds_source.make_source(
            records,
            image_size=image_size,
            resize=data.resize,
            max_pixels=data.max_pixels,
            in_memory=from_text(data.in_memory),
            examples=examples,
            seed=seed,
            what=what,
        )
        for records, examples, what in (
            (train, data.train_examples, "data.train_examples"),
            (test, data.test_examples, "data.test_examples"),
        )
    ]
    return Dataset(train.name, train_source, test_source, train.class_names, found)


def _load_folder(data: Any, image_size: int, seed: int) -> Dataset:
    if not data.dir:
        raise UserError("data.dir is empty: give the folder of images")
    path = Path(data.dir).expanduser()
    found = manifest.read(path)
    if found:
        found.check_listing(folder.list_images(path)[0], path)
    train, test, class_names = folder.list_splits(path, data.train_split, data.test_split, data.test_fraction, seed)
    train_source, test_source = [
        folder.make_source(
            folder.choose(files, examples, seed, what),
            image_size=image_size,
            resize=data.resize,
            max_pixels=data.max_pixels,
            in_memory=from_text(data.in_memory) is True,
            manifest=found,
        )
        for files, examples, what in (
            (train, data.train_examples, "data.train_examples"),
            (test, data.test_examples, "data.test_examples"),
        )
    ]
    return Dataset(path.resolve().name, train_source, test_source, class_names, found)


def _load_embedded(data: Any, seed: int) -> Dataset:
    if data.name != embedded.NAME:
        raise UserError(f"there is no embedded data set {data.name!r}: the only one is {embedded.NAME!r}")
    train, test, class_names = embedded.load_digits()

    def choose(source: ArraySource, examples: int, what: str) -> ArraySource:
        chosen = subset(len(source), examples, seed, what)
        return ArraySource(source.images[chosen], source.labels[chosen])

    return Dataset(
        embedded.NAME,
        choose(train, data.train_examples, "data.train_examples"),
        choose(test, data.test_examples, "data.test_examples"),
        class_names,
    )


def _check(data: Any, image_size: int, seed: int) -> None:
    for field, choices in (
        ("source", _SOURCES),
        ("resize", _RESIZES),
        ("in_memory", ("auto", True, False)),
    ):
        if from_text(data[field]) not in choices:
            raise UserError(f"data.{field} is {data[field]!r}: choose among {', '.join(map(repr, choices))}")
    if image_size < 1:
        raise UserError(f"the image size is {image_size}: give at least 1")
    if seed < 0:
        raise UserError(f"the seed is {seed}: give a number from 0 on")
    if not 1 <= data.max_pixels <= images.MAX_PIXELS_LIMIT:
        raise UserError(
            f"data.max_pixels is {data.max_pixels}: give 1 to {images.MAX_PIXELS_LIMIT}, Pillow's own limit"
        )
