"""SHA-256 of files and of lists of files, by which the inputs of a repeated command are compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from ppvit_jax.data.progress import Progress
from ppvit_jax.data.source import map_chunks
from ppvit_jax.errors import UserError

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
