"""Data sets written as image folders."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ppvit_jax.data.source import Dataset
from ppvit_jax.errors import UserError
from ppvit_jax.files import written_aside


def write_image_folder(dataset: Dataset, folder: Path) -> None:
    """Writes the images as FOLDER/train/CLASS/NUMBER.png and FOLDER/test/CLASS/NUMBER.png, losslessly.

    NUMBER is the image's place in its split. The folder appears whole or not at all.

    Args:
      dataset: the data set, with images uint8 [height, width, 3].
      folder: a folder that does not exist yet.

    Raises:
      UserError: the folder exists, or a class name cannot be a folder's name.
    """
    if folder.exists():
        raise UserError(f"{folder} exists: choose a new folder")
    for name in dataset.class_names:
        if not is_folder_name(name):
            raise UserError(f"the class name {name!r} cannot be the name of a folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(folder) as aside:
        for split, source in (("train", dataset.train), ("test", dataset.test)):
            digits = len(str(len(source) - 1))
            for name in dataset.class_names:
                (aside / split / name).mkdir(parents=True)
            for index, label in enumerate(source.labels):
                path = aside / split / dataset.class_names[label] / f"{index:0{digits}}.png"
                Image.fromarray(source.fetch(index)).save(path)


def is_folder_name(name: str) -> bool:
    """Returns True if a class can have a folder of its name: it is neither empty nor a path."""
    return Path(name).name == name and name not in ("", "..") and "\0" not in name
