"""Augmented copies of an image, which must stay on one side of every split."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Sequence

import numpy as np

from ppvit_jax.data.manifest import Manifest

# Numbers of images have eight digits; a date has them too, but begins with no zero.
_NUMBERED = re.compile(r"(?:.*/)?0\d{7}_(0|[1-9]\d*)\.png", re.DOTALL)
_COPY = re.compile(r"(.*)_(0|[1-9]\d*)", re.DOTALL)


def find_copies(names: Sequence[str], manifest: Manifest | None) -> tuple[int, str]:
    """Finds out how many files of a folder are copies of one image.

    The manifest says so. Without one, and with one of a former version, the names tell: `ppvit encrypt` calls the
    copies of an image 00000012_0.png, 00000012_1.png and so on.

    Args:
      names: paths of the images.
      manifest: manifest of the folder, or None.

    Returns:
      The number of copies, 1 if images have none; and the reason if it is assumed, "" if not.
    """
    if manifest and (manifest.header.copies > 1 or manifest.header.records_copies):
        return manifest.header.copies, ""
    numbers = [int(match[1]) if (match := _NUMBERED.fullmatch(name)) else -1 for name in names]
    if numbers and min(numbers) >= 0:
        copies = max(numbers) + 1
    elif manifest:
        copies = _count_kept(names)
    else:
        copies = 1
    if copies == 1:
        return 1, ""
    return copies, f"files that differ only in the number before the ending, such as {names[0]}, count as copies of one"


def group_name(name: str, copies: int) -> str:
    """Returns the path that the copies of an image share: without the ending, and without the number of the copy."""
    stem = name.rpartition(".")[0] if "." in name.rpartition("/")[2] else name
    match = _COPY.fullmatch(stem) if copies > 1 else None
    return match[1] if match and int(match[2]) < copies else stem


def number_groups(names: Sequence[str], manifest: Manifest | None) -> np.ndarray | None:
    """Returns a number for each image that its copies share, int [n]; None if images have no copies.

    Args:
      names: paths of the images.
      manifest: manifest of the folder, or None.
    """
    copies, _ = find_copies(names, manifest)
    if copies == 1:
        return None
    return np.unique([group_name(name, copies) for name in names], return_inverse=True)[1]


def number_copies(names: Iterable[str], copies: int) -> list[str]:
    """Returns new names: the number of the image, in the order of appearance, and the number among its copies.

    Args:
      names: paths of the images.
      copies: number of copies of an image, 2 or more.
    """
    groups: dict[str, int] = {}
    seen: collections.Counter[str] = collections.Counter()
    numbered = []
    for name in names:
        group = group_name(name, copies)
        numbered.append(f"{groups.setdefault(group, len(groups)):08d}_{seen[group]}")
        seen[group] += 1
    return numbered


def _count_kept(names: Sequence[str]) -> int:
    """Returns the number of copies if every name ends in the number of a copy and every image has the same number."""
    copies: dict[str, set[int]] = collections.defaultdict(set)
    for name in names:
        match = _COPY.fullmatch(name.rpartition(".")[0])
        if not match:
            return 1
        copies[match[1]].add(int(match[2]))
    sizes = {len(numbers) for numbers in copies.values()}
    complete = all(max(numbers) + 1 == len(numbers) for numbers in copies.values())
    return sizes.pop() if len(copies) > 1 and len(sizes) == 1 and complete else 1
