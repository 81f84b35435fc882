"""Rows of the image column of Parquet files, read on demand in bounded memory.

Parquet reads whole row groups. Those of the Hugging Face hub hold about a hundred images; such a group is read at once
and kept as long as there is room. A larger one is read in batches, from its beginning, and the place reached is kept:
reading in order takes one pass, and reading at random is slow.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppvit_jax.errors import UserError

# Bytes of images that are decoded from a file at once, and that are kept. Several threads read at a time.
GROUP_BYTES = 16 * 2**20
CACHE_BYTES = 64 * 2**20
_BUFFER_BYTES = 2**20
_LOCKS = 16


class ImageColumn:
    """Images of several Parquet files, one after another.

    Attributes:
      count: number of images.
      largest: the largest number of bytes that a row group has.
    """

    def __init__(self, files: Sequence[Path], metadata: Sequence[Any], column: str, *, is_struct: bool):
        """Finds the row groups.

        Args:
          files: the files.
          metadata: the pyarrow.parquet.FileMetaData of each.
          column: name of the column.
          is_struct: True if its values have the fields `bytes` and `path`.
        """
        self._files, self._metadata, self._column, self._is_struct = files, metadata, column, is_struct
        groups, rows, batches, sizes = [], [], [], []
        for number, (file, content) in enumerate(zip(files, metadata, strict=True)):
            for group, (count, size) in enumerate(_measure_groups(file, content)):
                if count:
                    groups.append((number, group))
                    rows.append(count)
                    sizes.append(size)
                    # A small group is one batch.
                    batches.append(max(1, count * GROUP_BYTES // max(size, GROUP_BYTES)))
        self._groups, self._batch_rows = groups, batches
        self._starts = np.cumsum([0, *rows])
        self._file_starts = np.cumsum([0, *(content.num_rows for content in metadata)])
        self.count = int(self._starts[-1])
        self.largest = max(sizes, default=0)
        self._cache: collections.OrderedDict[tuple[int, int], Any] = collections.OrderedDict()
        self._cached_bytes = 0
        self._cache_lock = threading.Lock()
        self._group_locks = [threading.Lock() for _ in range(_LOCKS)]
        # The group that is being read in batches, with the number of the next one.
        self._cursor: tuple[int, int, Iterator[Any]] | None = None
        self._cursor_lock = threading.Lock()

    def place(self, index: int) -> tuple[Path, int]:
        """Returns the file of an image, and its row there, from 0."""
        number = int(np.searchsorted(self._file_starts, index, side="right")) - 1
        return self._files[number], index - int(self._file_starts[number])

    def read(self, index: int) -> bytes:
        """Returns an encoded image.

        Raises:
          UserError: the file cannot be read, or the image has no bytes.
        """
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        number, row = divmod(index - int(self._starts[group]), self._batch_rows[group])
        batch = self._find(group, number)
        if batch is None:
            with self._group_locks[group % _LOCKS]:
                batch = self._find(group, number)
                if batch is None:
                    batch = self._load(group, number)
        return self._value(batch, row, index)

    def scan(self, indices: np.ndarray) -> Iterator[bytes]:
        """Yields the encoded images with these indices, which ascend, in one pass over their row groups."""
        groups = np.searchsorted(self._starts, indices, side="right") - 1
        for group in np.unique(groups).tolist():
            start = int(self._starts[group])
            wanted = indices[groups == group].tolist()
            place = 0
            for batch in self._batches(group):
                while place < len(wanted) and wanted[place] < start + len(batch):
                    yield self._value(batch, wanted[place] - start, wanted[place])
                    place += 1
                if place == len(wanted):
                    break
                start += len(batch)

    def _find(self, group: int, number: int) -> Any:
        with self._cache_lock:
            batch = self._cache.get((group, number))
            if batch is not None:
                self._cache.move_to_end((group, number))
            return batch

    def _keep(self, group: int, number: int, batch: Any) -> None:
        with self._cache_lock:
            if (group, number) not in self._cache:
                self._cache[group, number] = batch
                self._cached_bytes += batch.nbytes
            while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes

    def _load(self, group: int, number: int) -> Any:
        """Reads a batch, and keeps it."""
        if self._batch_rows[group] >= self._starts[group + 1] - self._starts[group]:
            batch = next(self._batches(group))
            self._keep(group, number, batch)
            return batch
        with self._cursor_lock:
            if self._cursor is None or self._cursor[0] != group or self._cursor[1] > number:
                self._cursor = (group, 0, self._batches(group))
            _, reached, batches = self._cursor
            while True:
                batch = next(batches)
                reached += 1
                self._cursor = (group, reached, batches)
                if reached > number:
                    self._keep(group, number, batch)
                    return batch

    def _batches(self, group: int) -> Iterator[Any]:
        """Yields the values of a row group, batch by batch, as arrays of pyarrow."""
        import pyarrow.parquet

        number, place = self._groups[group]
        path = self._files[number]
        try:
            with pyarrow.parquet.ParquetFile(
                path, metadata=self._metadata[number], buffer_size=_BUFFER_BYTES, pre_buffer=False
            ) as file:
                for batch in file.iter_batches(
                    self._batch_rows[group], row_groups=[place], columns=[self._column], use_threads=False
                ):
                    column = batch.column(0)
                    yield column.field("bytes") if self._is_struct else column
        # pyarrow documents no exception types for a damaged file.
        except Exception as error:
            raise damaged(path, error) from error

    def _value(self, batch: Any, row: int, index: int) -> bytes:
        content = batch[row].as_py() if row < len(batch) else None
        if content is None:
            path, place = self.place(index)
            raise UserError(f"{path}, row {place} has no bytes of an image: write the images into the file")
        return content


def _measure_groups(file: Path, metadata: Any) -> list[tuple[int, int]]:
    """Returns the rows and the bytes of each row group.

    Raises:
      UserError: the file is damaged.
    """
    try:
        measured = []
        for group in range(metadata.num_row_groups):
            part = metadata.row_group(group)
            # Those of the column alone would come from its metadata, and pyarrow aborts if these are damaged.
            measured.append((part.num_rows, part.total_byte_size))
        if any(count < 0 for count, _ in measured) or sum(count for count, _ in measured) != metadata.num_rows:
            raise ValueError("its row groups do not have the rows of the file")
    except Exception as error:  # pyarrow documents no exception types for a damaged file
        raise damaged(file, error) from error
    return measured


def damaged(path: Path, error: Exception) -> UserError:
    """Returns the error for a Parquet file that cannot be read."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(f"cannot read {path} ({reason}): it is damaged, truncated or no Parquet file, so get it again")
