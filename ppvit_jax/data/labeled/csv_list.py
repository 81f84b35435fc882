"""CSV lists of images: a path, a label and possibly a split in each line.

The first line names the columns. Several labels in a line are separated by ";". A path is relative to the folder of the
CSV, or absolute. It may lead outside that folder: a CSV is the user's own file, and its images are read as those behind
links in a folder are. An image that a manifest in one of its folders lists is compared with it.
"""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.class_depth import printable
from ppvit_jax.data.labeled.examples import Collection, Columns, Examples
from ppvit_jax.data.labeled.labels import Labels
from ppvit_jax.data.labeled.shards import list_shards
from ppvit_jax.data.manifest import Manifest
from ppvit_jax.errors import UserError

# Usual names of columns, in lower case.
_PATHS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path")
_LABELS = ("label", "labels", "class", "class_name", "target", "category")
_SPLIT = "split"
# One in any line says that every image may have any number of labels; "cat;" is a single one.
SEPARATOR = ";"


@dataclasses.dataclass(frozen=True)
class _Row:
    """A line of a CSV.

    Attributes:
      title: the number of the line and the file, for messages.
      path: the image's path, as the line has it.
      label: the label; a list if it is several; None without one.
      split: the split; "" without one.
    """

    title: str
    path: str
    label: str | list[str] | None
    split: str


def open_list(path: Path, columns: Columns, *, labeled: bool) -> Collection:
    """Opens a CSV list, or a folder with a CSV list for each split.

    Args:
      path: the file or the folder.
      columns: the names of the columns of paths and labels.
      labeled: True if every image needs a label.

    Raises:
      UserError: a file is missing, damaged or empty, lacks a column, or names an image that is missing or listed twice.
    """
    root, files = list_shards(path, ".csv")
    labels = Labels(labeled=labeled)
    paths: dict[str, list[str]] = {}
    titles: dict[str, str] = {}
    for file_split, lists in files.items():
        for file in lists:
            for row in _read_rows(file, columns, labeled):
                name = Path(os.path.relpath(file.parent, root), row.path).as_posix()
                _check_image(root / name, row, titles)
                split = row.split or file_split
                paths.setdefault(split, []).append(name)
                labels.add(split, row.label, f"{printable(row.path)} in {row.title}")
    class_names, by_split, declared = labels.finish()
    manifest = _find_manifest(root, [name for names in paths.values() for name in names])
    splits = tuple(_make_examples(root, split, names, by_split[split], manifest) for split, names in paths.items())
    return Collection(path, root, splits, class_names, declared, manifest)


def _make_examples(
    root: Path, split: str, names: Sequence[str], labels: np.ndarray | None, manifest: Manifest | None
) -> Examples:
    def sha256(index: int) -> str:
        assert manifest is not None
        return manifest.sha256(_absolute(root / names[index]))

    def read(index: int) -> bytes:
        path = root / names[index]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path} ({error.strerror}): replace it, or remove its line") from None
        if manifest is not None:
            manifests.check_content(path, content, sha256(index))
        return content

    def scan(indices: np.ndarray) -> Iterator[bytes]:
        return (read(int(index)) for index in indices)

    return Examples(split, len(names), labels, names.__getitem__, read, scan, sha256 if manifest else None)


def _read_rows(file: Path, columns: Columns, labeled: bool) -> Iterator[_Row]:
    number, count = 0, 0
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            lines = csv.reader(text, strict=True)
            header = [name.strip() for name in next(lines, [])]
            if not any(header):
                raise UserError(f"{file} is empty: write a first line such as path,label and a line for each image")
            image = _find_column(file, header, columns.image, _PATHS, "image")
            label = _find_column(file, header, columns.label, _LABELS, "label", needed=labeled)
            split = _find_column(file, header, "", (_SPLIT,), _SPLIT, needed=False)
            for values in lines:
                number = lines.line_num
                title = f"line {number} of {file}"
                if not values:
                    continue
                if len(values) != len(header):
                    raise UserError(
                        f"{title} has {len(values)} values, but the first line names {len(header)} columns: put "
                        "quotes around a value that has a comma"
                    )
                path, text, part = (values[place].strip() if place >= 0 else "" for place in (image, label, split))
                row = _Row(title, path, _split_labels(text), part)
                for place, value in ((image, row.path), (split, row.split)):
                    if place >= 0 and not value:
                        raise UserError(f"{title} has no {header[place]!r}: add it, or remove the line")
                yield row
                count += 1
    except csv.Error as error:
        raise UserError(f"cannot read {file} after line {number} ({error}): correct it") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not text in UTF-8: save it in this encoding") from None
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror}): replace it") from None
    if not count:
        raise UserError(f"{file} lists no images: write a line for each image")


def _split_labels(text: str) -> str | list[str] | None:
    if SEPARATOR in text:
        return [name for part in text.split(SEPARATOR) if (name := part.strip())]
    return text or None


def _find_column(
    file: Path, header: Sequence[str], name: str, usual: Iterable[str], field: str, *, needed: bool = True
) -> int:
    """Returns the place of a column; -1 if it is missing and not needed.

    Raises:
      UserError: there is no such column, or there are several.
    """
    if name:
        places = [place for place, column in enumerate(header) if column == name]
        wanted = f"no column {name!r}"
    else:
        places = [place for place, column in enumerate(header) if column.lower() in usual]
        wanted = f"no column of the name {' or '.join(usual)}"
    if len(places) == 1 or not (places or name or needed):
        return places[0] if places else -1
    listed = ", ".join(map(repr, header))
    wanted = f"the columns {' and '.join(repr(header[place]) for place in places)}" if places else wanted
    remedy = "rename one" if field == _SPLIT else f"name one in data.{field}_column"
    raise UserError(f"{file} has {wanted} among {listed}: {remedy}")


def _check_image(path: Path, row: _Row, titles: dict[str, str]) -> None:
    """Makes sure that a file is there and was not listed before.

    Raises:
      UserError: it is missing, or listed twice.
    """
    try:
        present = path.is_file()
    except (OSError, ValueError):
        present = False
    if not present:
        raise UserError(
            f"{row.title} names {printable(row.path)}, but there is no file {printable(str(path))}: "
            "correct the path, or remove the line"
        )
    first = titles.setdefault(os.path.normpath(path), row.title)
    if first is not row.title:
        raise UserError(f"{row.title} names {printable(row.path)}, as {first} does: list an image once, in one split")


def _find_manifest(root: Path, names: Iterable[str]) -> Manifest | None:
    """Returns the manifest that lists the images; None if there is none.

    Raises:
      UserError: one manifest lists some of the images, but not all.
    """
    found: Manifest | None = None
    outside = ""
    for folder in dict.fromkeys(name.rpartition("/")[0] for name in names):
        place = _absolute(root / folder)
        if found is not None and place.is_relative_to(found.folder):
            continue
        manifest = manifests.read(place)
        if manifest is None or (found is not None and manifest.folder != found.folder):
            outside = outside or str(place)
        found = found or manifest
    if found is not None and outside:
        raise UserError(
            f"the images in {found.folder} have a manifest, but those in {outside} are not of it: make a list of the "
            "images of one folder"
        )
    return found


def _absolute(path: Path) -> Path:
    """Returns the absolute path without "..", by which a manifest lists it."""
    return Path(os.path.abspath(path))  # noqa: PTH100
