"""WebDataset: tar files of samples, whose files share a name up to its first dot.

A sample is an image and a label: cat/0001.jpg, and cat/0001.cls with a number or a name, or cat/0001.json with a
"label", which may be a list. The files of a sample stand one after another. One pass over the headers of a tar file
finds the place of each image, and images are read from there when they are needed. Nothing is extracted.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from ppvit_jax.data.class_depth import printable
from ppvit_jax.data.formats import OTHER_ENDINGS, usual_endings
from ppvit_jax.data.labeled.class_list import read_class_names
from ppvit_jax.data.labeled.examples import Collection, Columns, Examples
from ppvit_jax.data.labeled.labels import Label, Labels
from ppvit_jax.data.labeled.names import Names
from ppvit_jax.data.labeled.shards import list_shards
from ppvit_jax.data.progress import Progress
from ppvit_jax.errors import UserError

# The key and the ending of a file, as the library WebDataset splits them.
_SAMPLE = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
_HIDDEN = re.compile(r"(?:.*/)?\.[^/]+|(?:\./)?__[^/]*__(?:/.*)?", re.DOTALL)
_LABELS = ("cls", "json")
# Labels are short; a larger file is something else.
_MOST_LABEL_BYTES = 2**20
_PIECE = 2**20


@dataclasses.dataclass
class _Sample:
    """Files of a tar that share a key.

    Attributes:
      key: their name up to its first dot.
      image: name, offset and size of the image; None without one.
      labels: the content of each file with a label, by its ending.
      others: the endings of other files.
    """

    key: str
    image: tuple[str, int, int] | None = None
    labels: dict[str, bytes] = dataclasses.field(default_factory=dict)
    others: list[str] = dataclasses.field(default_factory=list)

    @property
    def is_remark(self) -> bool:
        """True for text about the data set, such as README.md, which is no sample."""
        return self.image is None and not self.labels and {f".{ending}" for ending in self.others} <= OTHER_ENDINGS


class _Places:
    """Places of the images of one split.

    Attributes:
      names: the name of each image, with that of its tar file.
    """

    def __init__(self, root: Path, tars: Sequence[Path]):
        self.names = Names()
        self._root, self._tars = root, tars
        self._tar, self._offset, self._size = array("i"), array("q"), array("q")

    def add(self, tar: int, image: tuple[str, int, int]) -> None:
        """Adds the name, the offset and the size of an image in a tar file, given by its number."""
        name, offset, size = image
        self.names.append(f"{self._tars[tar].relative_to(self._root).as_posix()}/{name}")
        self._tar.append(tar)
        self._offset.append(offset)
        self._size.append(size)

    def read(self, index: int) -> bytes:
        """Returns an encoded image.

        Raises:
          UserError: the file cannot be read, or has become shorter.
        """
        path, size = self._tars[self._tar[index]], self._size[index]
        try:
            with path.open("rb") as file:
                file.seek(self._offset[index])
                content = file.read(size)
        except OSError as error:
            raise UserError(f"cannot read {path} ({error.strerror}): replace it") from None
        if len(content) < size:
            raise UserError(f"{path} is shorter than it was: leave it as it is while the program runs")
        return content

    def scan(self, indices: np.ndarray) -> Iterator[bytes]:
        """Yields encoded images."""
        return (self.read(int(index)) for index in indices)


def open_shards(path: Path, columns: Columns, *, labeled: bool) -> Collection:
    """Opens tar files, and finds their samples.

    Args:
      path: a folder of tar files, one tar file, or a pattern such as "train-{000000..000009}.tar".
      columns: its label is the field of .json files that has the label; "" for "label".
      labeled: True if every sample needs a label.

    Raises:
      UserError: a file is missing, damaged or compressed, or a sample lacks its image or label or has two.
    """
    root, files = list_shards(path, ".tar")
    labels = Labels(read_class_names(root), labeled=labeled)
    progress = Progress("finding the samples of tar files", 0, "samples")
    places = {split: _Places(root, tars) for split, tars in files.items()}
    for split, tars in files.items():
        for number, tar in enumerate(tars):
            for sample in _list_samples(tar):
                title = f"{tar}: the sample {printable(sample.key)}"
                if sample.image is None:
                    endings = ", ".join(f".{printable(ending)}" for ending in (*sample.labels, *sample.others))
                    raise UserError(
                        f"{title} has no image, but {endings} alone: pack the files of a sample one after another, as "
                        "tar --sort=name does, with no further dot in their names"
                    )
                places[split].add(number, sample.image)
                labels.add(split, _read_label(title, sample, columns.label or "label"), title)
                progress.update(labels.count)
    progress.close()
    class_names, by_split, declared = labels.finish()
    splits = tuple(
        Examples(split, len(place.names), by_split[split], place.names.__getitem__, place.read, place.scan)
        for split, place in places.items()
    )
    return Collection(path, root, splits, class_names, declared)


def _list_samples(path: Path) -> Iterator[_Sample]:
    """Yields the samples of one tar file.

    Raises:
      UserError: the file is damaged or empty, or has a member that no data set needs.
    """
    sample: _Sample | None = None
    count = 0
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                # The list of members would grow with the file.
                tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
                _check_member(path, member)
                match = _SAMPLE.fullmatch(member.name)
                if member.isdir() or _HIDDEN.fullmatch(member.name) or match is None:
                    continue
                if sample is None or sample.key != match[1]:
                    if sample is not None and not sample.is_remark:
                        yield sample
                        count += 1
                    sample = _Sample(match[1])
                _add_file(path, sample, member, match[2].lower(), tar)
            _check_end(path, file, tar.offset)
    except tarfile.TarError as error:
        raise UserError(f"cannot read {path} ({error}): give a complete tar file, not compressed") from None
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error}): replace it") from None
    if sample is not None and not sample.is_remark:
        yield sample
        count += 1
    if not count:
        raise UserError(f"{path} has no samples: pack files such as 0001.jpg and 0001.cls, one after another")


def _check_member(path: Path, member: tarfile.TarInfo) -> None:
    """Raises UserError for a path outside, a link or a device: no data set needs them, and an attack may."""
    place = PurePosixPath(member.name)
    if place.is_absolute() or ".." in place.parts:
        raise UserError(f"{path} has {printable(member.name)!r}, a path outside the file: do not trust it")
    if member.issym() or member.islnk():
        raise UserError(
            f"{path} has {printable(member.name)}, a link to {printable(member.linkname)}: pack the files themselves, "
            "by tar --dereference --hard-dereference"
        )
    if member.size < 0:
        raise UserError(f"{path} is damaged: {printable(member.name)} has a size of {member.size}, so get it again")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise UserError(f"{path} has {printable(member.name)}, which is no usual file: pack images and labels alone")


def _add_file(path: Path, sample: _Sample, member: tarfile.TarInfo, ending: str, tar: tarfile.TarFile) -> None:
    """Adds a file to a sample: an image, a label, or another."""
    title = f"{path}: the sample {printable(sample.key)}"
    if f".{ending}" in usual_endings():
        if sample.image is not None:
            names = " and ".join(printable(PurePosixPath(name).name) for name in (sample.image[0], member.name))
            raise UserError(f"{title} has two images, {names}: give each a name of its own")
        sample.image = member.name, member.offset_data, member.size
    elif ending in _LABELS:
        if ending in sample.labels:
            raise UserError(f"{title} has two files .{ending}: give each sample a name of its own")
        if member.size > _MOST_LABEL_BYTES:
            raise UserError(f"{title} has a label of {member.size:,} bytes: write a number or a name")
        file = tar.extractfile(member)
        sample.labels[ending] = file.read() if file else b""
    else:
        sample.others.append(ending)


def _read_label(title: str, sample: _Sample, field: str) -> Label | list[Label] | None:
    """Returns the label of a sample: of .cls, or else of the field in .json; None if it has neither.

    A list in .json has any number of labels.
    """
    try:
        if "cls" in sample.labels:
            label: object = sample.labels["cls"].decode().strip()
            if re.fullmatch(r"-?\d{1,18}", str(label)):
                return int(str(label))
        elif "json" in sample.labels:
            content = json.loads(sample.labels["json"])
            label = content.get(field) if isinstance(content, dict) else None
        else:
            return None
    except (ValueError, RecursionError):
        raise UserError(f"{title} has a label that cannot be read: write a number or a name") from None
    if label in (None, ""):
        return None
    several = label if isinstance(label, list) else [label]
    if wrong := [item for item in several if isinstance(item, bool) or not isinstance(item, int | str)]:
        raise UserError(f"{title} has the label {str(wrong[0])[:40]!r}: write a number or a name")
    return label  # pyright: ignore[reportReturnType]


def _check_end(path: Path, file: BinaryIO, offset: int) -> None:
    """Makes sure that a tar file ends with zeros, for the reader stops at the first damaged header without a word."""
    file.seek(offset)
    piece = file.read(tarfile.BLOCKSIZE)
    if len(piece) < tarfile.BLOCKSIZE or any(piece):
        raise UserError(f"{path} is truncated or damaged at byte {offset:,}: get it again")
    while piece := file.read(_PIECE):
        if piece.count(0) < len(piece):
            raise UserError(f"{path} has data behind its end: give tar files one by one, not one behind another")
