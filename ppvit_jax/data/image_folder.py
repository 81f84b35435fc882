"""Data source "image_folder": class folders of image files, in split folders or split at random."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.folders import LabeledFiles, list_class_folders, list_images, list_subfolders
from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.manifest import Manifest
from ppvit_jax.data.progress import Progress
from ppvit_jax.data.settings import DataSettings
from ppvit_jax.data.source import ArraySource, Dataset, StreamSource, map_chunks
from ppvit_jax.errors import UserError


def load(settings: DataSettings) -> Dataset:
    """Opens the folder `settings.dir`, and compares its files with its manifest, if it has one.

    Raises:
      UserError: the folder is missing, empty or wrong, or its files do not match the manifest.
    """
    if not settings.dir:
        raise UserError("data.dir is empty: give the folder of images")
    path = Path(settings.dir).expanduser()
    manifest = manifests.read(path)
    if manifest:
        manifest.check_listing(list_images(path)[0], path)
    train, test, class_names = list_splits(
        path, settings.train_split, settings.test_split, settings.test_fraction, settings.seed
    )
    train_source, test_source = [
        make_source(
            [files[index] for index in chosen], settings.reader, in_memory=settings.in_memory is True, manifest=manifest
        )
        for files, chosen in ((train, settings.choose_train(len(train))), (test, settings.choose_test(len(test))))
    ]
    # The images of a folder with a manifest have one size.
    resize = "" if manifest else settings.resize
    return Dataset(path.resolve().name, train_source, test_source, class_names, manifest, resize=resize)


def list_splits(
    folder: Path, train_split: str, test_split: str, test_fraction: float, seed: int
) -> tuple[LabeledFiles, LabeledFiles, tuple[str, ...]]:
    """Lists the training images and the test images.

    Args:
      folder: a folder with the subfolders `train_split` and `test_split`, or else with class folders.
      train_split, test_split: names of the subfolders.
      test_fraction: without these subfolders, the random share of each class to test on (rounded; at least one image,
        and never all).
      seed: seed of the random split.

    Returns:
      (path, class) of each training image, (path, class) of each test image, and the class names.

    Raises:
      UserError: a folder is missing or empty, only one of the subfolders exists, the test images have a class that the
        training images lack, or a class has too few images to split.
    """
    subfolders = list_subfolders(folder)
    present = [split for split in (train_split, test_split) if split in subfolders]
    if not present:
        files, class_names = list_class_folders(folder)
        train, test = _split(files, class_names, test_fraction, seed)
        return train, test, class_names
    if len(present) == 1:
        missing = test_split if present == [train_split] else train_split
        raise UserError(
            f"{folder} has a folder {present[0]!r} but none named {missing!r}: "
            "name both folders in data.train_split and data.test_split"
        )
    train, class_names = list_class_folders(folder / train_split)
    test, test_names = list_class_folders(folder / test_split)
    unknown = sorted(set(test_names) - set(class_names))
    if unknown:
        raise UserError(
            f"{folder / test_split} has the class {unknown[0]!r}, which {folder / train_split} lacks: "
            "add it there or remove it here"
        )
    labels = [class_names.index(name) for name in test_names]
    return train, [(path, labels[label]) for path, label in test], class_names


def make_source(
    files: LabeledFiles, reader: ImageReader, *, in_memory: bool, manifest: Manifest | None = None
) -> ArraySource | StreamSource:
    """Creates a source of image files, each of which is compared with the manifest, if there is one.

    Args:
      files: (path, class) of each image.
      reader: decodes the images, to one size.
      in_memory: True decodes all images now; False decodes each when it is fetched.
      manifest: the manifest of the folder.

    Raises:
      UserError: an image cannot be read or does not match the manifest; raised now if `in_memory`, otherwise when the
        image is fetched.
    """
    assert reader.image_size is not None
    shape = (reader.image_size, reader.image_size, 3)
    labels = np.array([label for _, label in files], np.int32)

    def read(index: int) -> np.ndarray:
        path = files[index][0]
        return reader.read(path, manifest.sha256(path) if manifest else None)

    if not in_memory:
        return StreamSource(labels, shape, read)
    array = np.empty((len(files), *shape), np.uint8)

    def read_chunk(chunk: Sequence[int]) -> None:
        for index in chunk:
            array[index] = read(index)

    map_chunks(len(files), read_chunk, Progress("decoding", len(files)))
    return ArraySource(array, labels)


def _split(
    files: LabeledFiles, class_names: tuple[str, ...], test_fraction: float, seed: int
) -> tuple[LabeledFiles, LabeledFiles]:
    if not 0 < test_fraction < 1:
        raise UserError(f"data.test_fraction is {test_fraction}: give a number between 0 and 1, such as 0.2")
    labels = np.array([label for _, label in files])
    in_test = np.zeros(len(files), bool)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    for label, class_name in enumerate(class_names):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise UserError(f"the class {class_name!r} has 1 image, but a split needs 2: add one or remove the class")
        count = min(max(round(len(members) * test_fraction), 1), len(members) - 1)
        in_test[generator.permutation(members)[:count]] = True
    train = [file for file, test in zip(files, in_test, strict=True) if not test]
    return train, [file for file, test in zip(files, in_test, strict=True) if test]
