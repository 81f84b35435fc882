"""Folders of class folders of image files."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ppvit_jax.data import images
from ppvit_jax.data.manifest import Manifest
from ppvit_jax.data.progress import Progress
from ppvit_jax.data.source import ArraySource, StreamSource, map_chunks, subset
from ppvit_jax.errors import UserError

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})

Files = list[tuple[Path, int]]


def list_files(folder: Path) -> tuple[Files, tuple[str, ...]]:
    """Lists the images of a folder of class folders, recursively, hidden files ignored.

    Returns:
        (path, class) of every image, in the order of class and path, and the class names in ascending order.

    Raises:
        UserError: the folder is missing, holds no class folder, or a class folder holds no image.
    """
    class_names = tuple(sorted(_visible_folders(folder)))
    if not class_names:
        raise UserError(f"{folder} has no class folders: put the images of each class in a folder of its own")
    files: Files = []
    for label, class_name in enumerate(class_names):
        paths, _ = _images_below(folder / class_name)
        if not paths:
            raise UserError(
                f"the class folder {folder / class_name} has no image ({', '.join(sorted(EXTENSIONS))}): "
                "add one or remove the folder"
            )
        files.extend((folder / class_name / path, label) for path in paths)
    return files, class_names


def list_images(folder: Path) -> tuple[list[str], int]:
    """Lists all images below a folder, labelled or not, hidden files ignored.

    Returns:
        Their paths inside the folder, with "/", ordered part by part; and how many other files there are.

    Raises:
        UserError: the folder is missing or holds no image.
    """
    _visible_folders(folder)
    paths, others = _images_below(folder)
    if not paths:
        raise UserError(f"{folder} has no images ({', '.join(sorted(EXTENSIONS))}): give a folder of image files")
    return paths, others


def list_splits(
    folder: Path, train_split: str, test_split: str, test_fraction: float, seed: int
) -> tuple[Files, Files, tuple[str, ...]]:
    """Lists the images to train on and to test on.

    They are the sub-folders `train_split` and `test_split`; a folder with neither consists of class
    folders, and of each class a random `test_fraction` (rounded, at least one image, never all) is for the
    test.

    Returns:
        (path, class) of the training images, of the test images, and the class names.

    Raises:
        UserError: a folder is missing or empty, only one of the sub-folders exists, the test has a class that
            training lacks, or a class has too few images to split.
    """
    folders = _visible_folders(folder)
    present = [split for split in (train_split, test_split) if split in folders]
    if not present:
        files, class_names = list_files(folder)
        train, test = _split(files, class_names, test_fraction, seed)
        return train, test, class_names
    if len(present) == 1:
        missing = test_split if present == [train_split] else train_split
        raise UserError(
            f"{folder} has a folder {present[0]!r} but none named {missing!r}: "
            "name both in data.train_split and data.test_split"
        )
    train, class_names = list_files(folder / train_split)
    test, test_names = list_files(folder / test_split)
    unknown = sorted(set(test_names) - set(class_names))
    if unknown:
        raise UserError(
            f"{folder / test_split} has the class {unknown[0]!r}, which {folder / train_split} lacks: "
            "add it there or remove it here"
        )
    labels = [class_names.index(name) for name in test_names]
    return train, [(path, labels[label]) for path, label in test], class_names


def make_source(
    files: Files,
    *,
    image_size: int,
    resize: images.Resize,
    max_pixels: int,
    in_memory: bool,
    manifest: Manifest | None = None,
) -> ArraySource | StreamSource:
    """A source of image files, resized to image_size x image_size, each compared with the manifest if there is one.

    Raises:
        UserError: an image cannot be read, or is not the manifest's: at once when in memory, else when it is fetched.
    """
    labels = np.array([label for _, label in files], np.int32)
    read = functools.partial(_read, files, image_size, resize, max_pixels, manifest)
    if not in_memory:
        return StreamSource(labels, (image_size, image_size, 3), read)
    array = np.empty((len(files), image_size, image_size, 3), np.uint8)

    def work(chunk: Sequence[int]) -> None:
        for index in chunk:
            array[index] = read(index)

    map_chunks(len(files), work, Progress("decoding", len(files)))
    return ArraySource(array, labels)


def choose(files: Files, examples: int, seed: int, what: str) -> Files:
    """A random subset of `examples` files (0: all); see `subset`."""
    return [files[index] for index in subset(len(files), examples, seed, what)]


def _read(
    files: Files, image_size: int, resize: images.Resize, max_pixels: int, manifest: Manifest | None, index: int
) -> np.ndarray:
    path = files[index][0]
    if manifest is None:
        return images.fit(images.decode(path, name=str(path), max_pixels=max_pixels), image_size, resize)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): replace it") from error
    manifest.check(path, content)
    return images.fit(images.decode(content, name=str(path), max_pixels=max_pixels), image_size, resize)


def _visible_folders(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    except OSError as error:
        raise UserError(f"cannot read the folder {folder} ({error.strerror}): check data.dir") from error


def _images_below(folder: Path) -> tuple[list[str], int]:
    """As `list_images`; paths are strings, which are small, for there may be millions."""
    images, others, visited = [], 0, set()
    for root, folders, names in os.walk(folder, followlinks=True):
        # A symbolic link to a folder above would otherwise be followed for ever.
        place = os.path.realpath(root)
        if place in visited:
            folders.clear()
            continue
        visited.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        visible = [name for name in names if not name.startswith(".")]
        chosen = [name for name in visible if Path(name).suffix.lower() in EXTENSIONS]
        prefix = Path(root).relative_to(folder)
        images += [(prefix / name).as_posix() for name in chosen]
        others += len(visible) - len(chosen)
    # Part by part: nothing sorts before the character put between the parts.
    images.sort(key=lambda path: path.replace("/", "\0"))
    return images, others


def _split(files: Files, class_names: tuple[str, ...], test_fraction: float, seed: int) -> tuple[Files, Files]:
    if not 0 < test_fraction < 1:
        raise UserError(f"data.test_fraction is {test_fraction}: give a number between 0 and 1, such as 0.2")
    labels = np.array([label for _, label in files])
    in_test = np.zeros(len(files), bool)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    for label, class_name in enumerate(class_names):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise UserError(f"the class {class_name!r} has 1 image, and a split needs 2: add one or remove the class")
        count = min(max(round(len(members) * test_fraction), 1), len(members) - 1)
        in_test[generator.permutation(members)[:count]] = True
    train = [file for file, test in zip(files, in_test, strict=True) if not test]
    return train, [file for file, test in zip(files, in_test, strict=True) if test]
