"""SHA-256 of files and of lists of files, by which the inputs of a repeated command are compared."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from ppvit_jax.data.class_depth import printable
from ppvit_jax.data.progress import Progress
from ppvit_jax.data.source import map_chunks
from ppvit_jax.errors import UserError, print_warning

_SIZE = hashlib.sha256().digest_size


def hash_files(count: int, path: Callable[[int], Path], *, unit: str = "images", strict: bool = True) -> np.ndarray:
    """Computes the SHA-256 of each of several files, in threads.

    Args:
      count: number of files.
      path: index -> the file.
      unit: name of the files, for the progress line.
      strict: True rejects a file that cannot be read; False gives it zeros.

    Returns:
      uint8 [count, 32].

    Raises:
      UserError: a file cannot be read, and `strict`.
    """
    digests = np.zeros((count, _SIZE), np.uint8)

    def hash_chunk(chunk: Sequence[int]) -> None:
        for index in chunk:
            try:
                with path(index).open("rb") as file:
                    digests[index] = np.frombuffer(hashlib.file_digest(file, "sha256").digest(), np.uint8)
            except OSError as error:
                if strict:
                    raise UserError(f"cannot read {path(index)} ({error.strerror}): replace or remove it") from None

    map_chunks(count, hash_chunk, Progress(f"computing the SHA-256 of {unit}", count, unit))
    return digests


def digest_of(entries: Iterable[object]) -> str:
    """Returns the SHA-256 of values of JSON, one a line, in hexadecimal."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(f"{json.dumps(entry)}\n".encode())
    return digest.hexdigest()


def digest_train_and_test(
    root: Path,
    names: Sequence[str],
    labels: Sequence[object],
    digests: Sequence[str],
    class_names: Sequence[str],
    train_count: int,
    validation_count: int = 0,
) -> tuple[str, str]:
    """Returns the SHA-256 of images' names, classes and content, of all and of the training images alone.

    Training images among the test or validation images get a warning.

    Args:
      root: the folder that names begin at, for the warning.
      names: name of each image; the training images come first, and the validation images last.
      labels: class of each image, as a value of JSON.
      digests: SHA-256 of each image, in hexadecimal.
      class_names: names of the classes.
      train_count: number of training images.
      validation_count: number of validation images.

    Raises:
      UserError: every validation image is a training image.
    """
    known = dict(zip(digests[:train_count], names, strict=False))
    end = len(names) - validation_count
    for title, places in (("test", range(train_count, end)), ("validation", range(end, len(names)))):
        twins = [(names[place], known[digests[place]]) for place in places if digests[place] in known]
        if not twins:
            continue
        held, train = (printable(str(root / name)) for name in twins[0])
        if title == "validation" and len(twins) == validation_count:
            raise UserError(
                f"every validation image is a training image, such as {held} and {train}: give another split in "
                "data.validation, or a fraction such as 0.1"
            )
        print_warning(
            f"{len(twins):,} {title} images are training images too, such as {held} and {train}: the {title} accuracy "
            "is too high"
        )

    def digest(count: int) -> str:
        entries = ([names[index], labels[index], digests[index]] for index in range(count))
        parts = [train_count, validation_count] if validation_count else [train_count]
        return digest_of(itertools.chain([[*class_names, *parts]], entries))

    return digest(len(names)), digest(train_count)
