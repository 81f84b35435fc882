"""Journal of an output folder: the list of finished work, from which a command resumes, and the final manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.lock import lock
from ppvit_jax.data.progress import Progress
from ppvit_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Record:
    """Result of one piece of work: an image, or a shard of a data set.

    Attributes:
      files: the SHA-256 of each file that was written, in hexadecimal, by name.
      left_out: the messages about images that could not be read.
    """

    files: dict[str, str]
    left_out: list[str]

    def line(self, number: int) -> bytes:
        """Returns the record as a line of a worker's file; `number` is the place of its entry in the journal."""
        return f"{json.dumps([number, self.files, self.left_out])}\n".encode()


class Journal:
    """Journal of one output folder, closed by `finish` or by leaving the `with` block.

    Attributes:
      folder: the output folder.
      done: number of entries that the journal has.
      complete: True if the same command has completed the folder.
      unfinished: a folder inside, for files being written and for the records of workers; `finish` removes it.
    """

    def __init__(self, folder: Path, header: manifests.Header, authenticate: Callable[[bytes], str] | None):
        """Opens the folder, or creates it.

        Raises:
          UserError: the folder holds other files or the output of another command, another process is writing to it,
            or it cannot be written.
        """
        self.folder, self._header, self._authenticate = folder, header, authenticate
        self.done, self.complete = 0, False
        self._path = folder / manifests.JOURNAL
        self.unfinished = folder / manifests.UNFINISHED
        self._records: dict[int, bytes] = {}
        first = json.dumps(header.fields())
        try:
            folder.mkdir(parents=True, exist_ok=True)
            begun = self._path.exists()
            if not begun and any(folder.iterdir()):
                manifest = manifests.read(folder)
                self.complete = manifest is not None and manifest.header == header
                if self.complete:
                    return
                raise UserError(
                    f"{folder} already holds other files, or the output of another command: choose a new folder"
                )
            try:
                self._file = self._path.open("r+b" if begun else "xb")
            except FileExistsError:
                # Both were started at the same moment.
                raise UserError(
                    f"another process is writing to {folder}: wait for it, or choose a new folder"
                ) from None
            lock(self._file, folder)
            if begun and self._file.readline() not in (b"", f"{first}\n".encode()):
                self._file.close()
                raise UserError(
                    f"{folder} was begun with another key, other images or other options: repeat the command that "
                    "began it, or choose a new folder"
                )
            if begun and self._file.tell():
                self._continue()
            else:
                self._write(json.loads(first))
            self.unfinished.mkdir(exist_ok=True)
            self.take_records(checks=True)
        except OSError as error:
            raise UserError(f"cannot write to {error.filename or folder}: {error.strerror}") from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.complete:
            self._file.close()

    def add(self, files: dict[str, str]) -> None:
        """Adds the next entry: the SHA-256 of its files by name, after they have been written."""
        self._write(files)
        self.done += 1

    def take_records(self, *, checks: bool) -> None:
        """Reads the records of workers; with `checks`, only those whose files are still present and whole."""
        progress = Progress(f"checking what is in {self.folder}", 0, "records")
        for path in self.unfinished.glob("*.jsonl"):
            with path.open("rb") as file:
                for line in file:
                    # A worker that was killed leaves half a line.
                    if (record := _parse_record(line)) is not None and record[0] >= self.done:
                        if not checks or self._is_there(record[1]):
                            self._records[record[0]] = line
                        progress.update(len(self._records))
        progress.close()

    @property
    def begun(self) -> int:
        """Number of entries that the journal or the workers' records have."""
        return self.done + len(self._records)

    def record(self, number: int) -> Record | None:
        """Returns a worker's record of the entry with this number, if there is one."""
        line = self._records.get(number)
        return Record(*json.loads(line)[1:]) if line else None

    def entries(self) -> Iterator[dict[str, str]]:
        """Yields the entries in order."""
        with self._path.open() as file:
            next(file)
            for line in file:
                yield json.loads(line)

    def finish(self) -> None:
        """Writes the manifest and removes the journal."""
        # This comes first, so that a crash here leaves a journal with every entry.
        shutil.rmtree(self.unfinished, ignore_errors=True)
        files = (item for entry in self.entries() for item in entry.items())
        manifests.write(self.folder, self._header, files, self._authenticate)
        self._path.unlink()
        self._file.close()

    def _continue(self) -> None:
        """Counts the entries whose files are present and whole, and drops the rest, which an interruption cut short."""
        progress = Progress(f"checking what is in {self.folder}", 0, "files")
        end = self._file.tell()
        for line in self._file:
            if (files := _parse_files(line)) is None or not self._is_there(files):
                break
            self.done += 1
            end += len(line)
            progress.update(self.done)
        progress.close()
        self._file.seek(end)
        self._file.truncate()

    def _is_there(self, files: dict[str, str]) -> bool:
        try:
            for name, sha256 in files.items():
                with (self.folder / name).open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                        return False
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return False
        return True

    def _write(self, value: object) -> None:
        self._file.write(f"{json.dumps(value)}\n".encode())
        self._file.flush()


def _parse_files(line: bytes) -> dict[str, str] | None:
    """Returns an entry of the journal: SHA-256 by name; None if the line is cut short or damaged."""
    try:
        files = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return files if _lists_files(files) else None


def _parse_record(line: bytes) -> tuple[int, dict[str, str], list[str]] | None:
    """Returns the record of a worker, as `Record.line` writes it; None if the line is cut short or damaged."""
    try:
        number, files, left_out = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return None
    texts = isinstance(left_out, list) and all(isinstance(text, str) for text in left_out)
    whole = line.endswith(b"\n") and isinstance(number, int) and texts and _lists_files(files)
    return (number, files, left_out) if whole else None


def _lists_files(files: object) -> bool:
    return isinstance(files, dict) and all(
        isinstance(sha256, str) and not {"..", ""} & set(name.split("/")) and "\0" not in name
        for name, sha256 in files.items()
    )
