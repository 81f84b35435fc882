"""Data source "image_folder": class folders of image files, in split folders or split at random."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.copies import number_groups
from ppvit_jax.data.folders import LabeledFiles
from ppvit_jax.data.hashing import digest_train_and_test, hash_files
from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.manifest import Manifest
from ppvit_jax.data.progress import Progress
from ppvit_jax.data.settings import DataSettings
from ppvit_jax.data.source import ArraySource, Dataset, StreamSource, map_chunks
from ppvit_jax.data.train_and_test import choose_validation, divide, list_for_training
from ppvit_jax.errors import UserError


def load(settings: DataSettings) -> Dataset:
    """Opens the folder `settings.dir`, and compares its files with its manifest, if it has one.

    A summary of the folder is printed on stderr.

    Raises:
      UserError: the folder is missing, empty or wrong, or its files do not match the manifest.
    """
    if not settings.dir:
        raise UserError("data.dir is empty: give the folder of images")
    path = Path(settings.dir).expanduser()
    manifest = manifests.read(path)
    splits = (settings.train_split, settings.test_split)
    listing = list_for_training(path, *splits, manifest, settings.validation_split)
    if manifest:
        manifest.check_listing(listing.images, path)
    train, test, class_names = divide(
        listing, *splits, settings.test_fraction, settings.seed, manifest, settings.validation_split
    )
    validation = []
    if settings.validation_split:
        validation = choose_validation(listing, settings.validation_split, *splits, class_names)
    train = [train[index] for index in settings.choose_train(len(train))]
    test = [test[index] for index in settings.choose_test(len(test))]
    digest, train_digest = _digests(path, train, test, validation, class_names, manifest)
    train_source, test_source, *others = [
        make_source(files, settings.reader, in_memory=settings.in_memory is True, manifest=manifest)
        for files in filter(None, (train, test, validation))
    ]
    return Dataset(
        path.resolve().name,
        train_source,
        test_source,
        class_names,
        manifest,
        digest,
        train_digest,
        # The images of a folder with a manifest have one size.
        resize="" if manifest else settings.resize,
        validation=others[0] if others else None,
        train_groups=number_groups([str(file) for file, _ in train], manifest) if settings.validation else None,
    )


def _digests(
    root: Path,
    train: LabeledFiles,
    test: LabeledFiles,
    validation: LabeledFiles,
    class_names: tuple[str, ...],
    manifest: Manifest | None,
) -> tuple[str, str]:
    """Returns the SHA-256 of the images' paths, classes and content, of all and of the training images alone.

    Test or validation images that are training images too get a warning.

    Raises:
      UserError: every validation image is a training image.
    """
    files = [*train, *test, *validation]
    if manifest:
        digests = [manifest.sha256(path) for path, _ in files]
    else:
        digests = [row.tobytes().hex() for row in hash_files(len(files), lambda index: files[index][0])]
    start = len(str(root)) + 1
    names = [str(path)[start:] for path, _ in files]
    labels = [label for _, label in files]
    return digest_train_and_test(root, names, labels, digests, class_names, len(train), len(validation))


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
