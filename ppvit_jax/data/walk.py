"""Walk through a folder: its image files, and the files that are left out with the reason."""

from __future__ import annotations

import collections
import dataclasses
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ppvit_jax.data import formats
from ppvit_jax.data.progress import Progress
from ppvit_jax.errors import UserError

HIDDEN, SYSTEM, LINK, LOOP, SPECIAL, FORBIDDEN, OTHER = (
    "hidden",
    "files of the system",
    "links to nothing",
    "links to a folder above",
    "neither files nor folders",
    "without permission",
    "",
)
# Files and folders that operating systems and network drives add, in lower case.
_SYSTEM_NAMES = frozenset(
    {
        *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "#recycle", "lost+found"),
        *("$recycle.bin", "system volume information"),
    }
)


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Files of one folder that are left out for one reason.

    Attributes:
      folder: up to two leading folders of the files, with "/"; "" for files at the top.
      reason: HIDDEN, SYSTEM, LINK, LOOP, SPECIAL or FORBIDDEN; OTHER for files that are not images.
      ending: ending of the files in lower case; "" for files without one and for all reasons but OTHER.
      count: number of the files.
      example: path of one of them.
    """

    folder: str
    reason: str
    ending: str
    count: int
    example: str


@dataclasses.dataclass(frozen=True)
class Files:
    """Files below a folder.

    Attributes:
      images: paths of the images inside the folder, with "/", ordered part by part.
      folders: paths of the visible folders, down to the second level.
      left_out: everything else.
    """

    images: list[str]
    folders: frozenset[str]
    left_out: tuple[LeftOut, ...]


def walk(root: Path, *, ignored: Iterable[str] = (), skip_unreadable: bool = False) -> Files:
    """Lists all files below a folder, following links.

    A link to a folder above is not followed, because it would never end.

    Args:
      root: the folder.
      ignored: names of files at its top that are neither listed nor left out.
      skip_unreadable: True leaves out links to nothing and folders that cannot be read; False rejects them.

    Raises:
      UserError: the folder or a folder inside cannot be read, or a link that may be an image leads nowhere.
    """
    return _Walk(root, frozenset(ignored), skip_unreadable).run()


class _Walk:
    def __init__(self, root: Path, ignored: frozenset[str], skip_unreadable: bool):
        self._root, self._ignored, self._skip = root, ignored, skip_unreadable
        self._images: list[str] = []
        self._folders: set[str] = set()
        self._counts: collections.Counter[tuple[str, str, str]] = collections.Counter()
        self._examples: dict[tuple[str, str, str], str] = {}
        self._usual = formats.usual_endings()

    def run(self) -> Files:
        progress = Progress(f"listing {self._root}", 0, "images")
        # The real paths of the folders above tell whether a link leads round in a circle.
        waiting: list[tuple[str, frozenset[str]]] = [("", frozenset())]
        while waiting:
            folder, above = waiting.pop()
            place = os.path.realpath(self._root / folder)
            if place in above:
                self._leave_out(folder, LOOP)
                continue
            if folder and folder.count("/") < 2:
                self._folders.add(folder)
            waiting += [(inside, above | {place}) for inside in self._list_folder(folder)]
            progress.update(len(self._images))
        progress.close()
        # Ordered part by part: the separator sorts before every other character.
        self._images.sort(key=lambda path: path.replace("/", "\0"))
        left_out = (LeftOut(*key, count, self._examples[key]) for key, count in sorted(self._counts.items()))
        return Files(self._images, frozenset(self._folders), tuple(left_out))

    def _list_folder(self, folder: str) -> Iterator[str]:
        """Sorts the files of a folder into images and others, and yields the folders in it."""
        try:
            with os.scandir(self._root / folder) as entries:
                for entry in entries:
                    if folder or entry.name not in self._ignored:
                        path = f"{folder}/{entry.name}" if folder else entry.name
                        if self._sort(entry, path):
                            yield path
        except OSError as error:
            if not folder:
                raise UserError(f"cannot read the folder {self._root} ({error.strerror}): check the path") from error
            self._reject(folder, error, "make it readable, or move it away")
            self._leave_out(f"{folder}/", FORBIDDEN)

    def _sort(self, entry: os.DirEntry[str], path: str) -> bool:
        """Adds a file to the images or to those left out; returns True for a folder to look into."""
        if entry.name.startswith("."):
            self._leave_out(path, HIDDEN)
            return False
        if entry.name.lower() in _SYSTEM_NAMES:
            self._leave_out(path, SYSTEM)
            return False
        ending = formats.split_ending(entry.name)[1]
        try:
            if entry.is_dir():
                return True
            if not entry.is_file():
                Path(entry.path).stat()  # Raises an error for a link to nothing.
                self._leave_out(path, SPECIAL)
                return False
        except OSError as error:
            # A link without an ending may be a folder of images; one that leads to itself never was.
            lost = ending in self._usual or (not ending and error.errno != errno.ELOOP)
            if lost:
                self._reject(path, error, "replace or remove it")
            self._leave_out(path, LINK)
            return False
        try:
            if ending in self._usual or formats.is_image(Path(entry.path), ending):
                self._images.append(path)
            else:
                self._leave_out(path, OTHER, ending)
        except OSError as error:
            if not ending:
                self._reject(path, error, "make it readable, or move it away")
            self._leave_out(path, FORBIDDEN)
        return False

    def _reject(self, path: str, error: OSError, remedy: str) -> None:
        if not self._skip:
            raise UserError(f"cannot read {self._root / path} ({error.strerror}): {remedy}") from None

    def _leave_out(self, path: str, reason: str, ending: str = "") -> None:
        key = "/".join(path.split("/")[:-1][:2]), reason, ending
        self._counts[key] += 1
        self._examples.setdefault(key, path)
