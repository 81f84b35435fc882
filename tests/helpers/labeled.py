"""The same labeled images as an image folder and in files of other formats."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from helpers.images import write_images
from ppvit_jax.data.settings import DataSettings

# (split, class, path inside the folder) of each image, in the order of a folder's listing.
Row = tuple[str, str, str]


def write_folder(root: Path, splits: Sequence[str] = ("train", "test"), count: int = 4, size: int = 6) -> list[Row]:
    """Writes an image folder with `count` images of each of the classes ant and bee in each split; lists them."""
    rows = [
        (split, name, "/".join(filter(None, (split, name, f"{number}.png"))))
        for split in splits
        for name in ("ant", "bee")
        for number in range(count)
    ]
    write_images(root, [path for _, _, path in rows], size=size)
    return rows


def write_csv(file: Path, lines: Iterable[Sequence[object]], header: Sequence[str] = ("path", "label")) -> Path:
    """Writes a CSV with a header."""
    with file.open("w", newline="") as text:
        csv.writer(text).writerows([header, *lines])
    return file


def settings(folder: Path, **changes: object) -> DataSettings:
    """Returns the settings of images at 4x4, with a quarter of each class to test on."""
    fields = {
        "name": "",
        "dir": str(folder),
        "train_split": "train",
        "test_split": "test",
        "test_fraction": 0.25,
        "resize": "squash",
        "max_pixels": 10_000,
        "train_examples": 0,
        "test_examples": 0,
        "in_memory": "auto",
        "image_size": 4,
        "seed": 0,
    }
    return DataSettings(**(fields | changes))  # pyright: ignore[reportArgumentType]


def content_of(dataset) -> list:
    """Returns the class names, and the class and the values of each training and test image, in order."""
    sources = (dataset.train, dataset.test)
    images = [[source.fetch(index).tobytes() for index in range(len(source))] for source in sources]
    return [dataset.class_names, *(source.labels.tolist() for source in sources), *images]
