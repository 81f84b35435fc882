"""Labeled images as a data set for training: digests, and sources that read on demand."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
from collections.abc import Callable
from concurrent import futures

import numpy as np

from ppvit_jax.data.copies import number_groups
from ppvit_jax.data.hashing import digest_train_and_test
from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.labeled.division import Chosen, divide
from ppvit_jax.data.labeled.examples import Collection, Columns, Examples
from ppvit_jax.data.labeled.formats import FORMATS
from ppvit_jax.data.progress import Progress
from ppvit_jax.data.settings import DataSettings
from ppvit_jax.data.source import IN_MEMORY_BYTES, ArraySource, Dataset, StreamSource
from ppvit_jax.errors import UserError, print_warning
from ppvit_jax.files import local_path

# Images that are decoded together while the next ones are read.
_CHUNK = 64
_MAX_THREADS = 8


def loader(name: str) -> Callable[[DataSettings], Dataset]:
    """Returns the function `load` of the data source of a format."""
    return functools.partial(_load, name)


def _load(name: str, settings: DataSettings) -> Dataset:
    """Opens the input `settings.dir`, and prints a summary on stderr.

    Raises:
      UserError: the input is missing, damaged or wrong, or a split or a class is missing.
    """
    if not settings.dir:
        raise UserError(f"data.dir is empty: give the {name} file, or the folder of its files")
    columns = Columns(settings.image_column, settings.label_column)
    collection = FORMATS[name].open(local_path(settings.dir), columns, labeled=True)
    train, test, validation, class_names = divide(collection, settings)
    train = train.take(settings.choose_train(len(train.indices)))
    test = test.take(settings.choose_test(len(test.indices)))
    parts = [part for part in (train, test, validation) if part is not None]
    digest, train_digest = _digest(collection, parts, class_names)
    in_memory = settings.in_memory is True
    if collection.in_groups and settings.in_memory == "auto":
        in_memory = sum(len(part.indices) for part in parts) * 3 * settings.image_size**2 < IN_MEMORY_BYTES
    if collection.slow and not in_memory:
        print_warning(collection.slow)
    train_source, test_source, *others = [
        make_source(collection, part, settings.reader, in_memory=in_memory) for part in parts
    ]
    # The images of a folder with a manifest have one size.
    resize = "" if collection.manifest else settings.resize
    title = local_path(settings.dir).resolve().name
    return Dataset(
        title,
        train_source,
        test_source,
        class_names,
        collection.manifest,
        digest,
        train_digest,
        resize,
        validation=others[0] if others else None,
        train_groups=_group_copies(collection, train) if settings.validation else None,
    )


def _group_copies(collection: Collection, chosen: Chosen) -> np.ndarray | None:
    """Returns a number for each image that the copies of an image share, int [n]; None if images have no copies."""
    return number_groups([chosen.examples.name(int(index)) for index in chosen.indices], collection.manifest)


def make_source(
    collection: Collection, chosen: Chosen, reader: ImageReader, *, in_memory: bool
) -> ArraySource | StreamSource:
    """Creates a source of some images.

    Args:
      collection: the input, which names images in messages.
      chosen: the images.
      reader: decodes them, to one size.
      in_memory: True decodes all now, in one pass over the files; False decodes each when it is fetched.

    Raises:
      UserError: an image cannot be read; raised now if `in_memory`, otherwise when the image is fetched.
    """
    assert reader.image_size is not None
    shape = (reader.image_size, reader.image_size, 3)
    examples, indices = chosen.examples, chosen.indices

    def decode(position: int, content: bytes) -> np.ndarray:
        return reader.decode(content, collection.title(examples, int(indices[position])))

    if not in_memory:
        return StreamSource(
            chosen.labels, shape, lambda position: decode(position, examples.read(int(indices[position])))
        )
    array = np.empty((len(indices), *shape), np.uint8)
    contents = enumerate(examples.scan(indices))
    progress = Progress("decoding", len(indices))

    def decode_into(item: tuple[int, bytes]) -> None:
        array[item[0]] = decode(*item)

    with futures.ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        while chunk := list(itertools.islice(contents, _CHUNK)):
            for _ in pool.map(decode_into, chunk):
                pass
            progress.update(chunk[-1][0] + 1)
    progress.close()
    return ArraySource(array, chosen.labels)


def hash_images(examples: Examples, indices: np.ndarray) -> list[str]:
    """Returns the SHA-256 of encoded images, in hexadecimal; a manifest spares reading them.

    Args:
      examples: the split.
      indices: the images' places in it, in ascending order, int [n].

    Raises:
      UserError: an image cannot be read.
    """
    if examples.sha256 is not None:
        return [examples.sha256(int(index)) for index in indices]
    digests = []
    progress = Progress("computing the SHA-256 of images", len(indices))
    for content in examples.scan(indices):
        digests.append(hashlib.sha256(content).hexdigest())
        progress.update(len(digests))
    progress.close()
    return digests


def _digest(collection: Collection, parts: list[Chosen], class_names: tuple[str, ...]) -> tuple[str, str]:
    """Returns the digests of training, test and possibly validation images; see `digest_train_and_test`."""
    names = [part.examples.name(int(index)) for part in parts for index in part.indices]
    labels = [label for part in parts for label in part.labels.tolist()]
    digests = [digest for part in parts for digest in hash_images(part.examples, part.indices)]
    counts = [len(part.indices) for part in parts]
    return digest_train_and_test(collection.root, names, labels, digests, class_names, counts[0], sum(counts[2:]))
