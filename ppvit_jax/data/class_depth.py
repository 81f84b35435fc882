"""Depth of class folders: folders inside them that may be the classes instead."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

# More pairs of folders need not be compared to notice that they are alike.
_COMPARED = 20


def find_deeper_classes(
    root: Path, images: Sequence[str], classes: Mapping[str, range], level: int, *, is_only: bool
) -> tuple[str, str]:
    """Finds class folders that hold several folders and no image of their own.

    Args:
      root: the folder that is listed.
      images: paths of the images inside it.
      classes: positions of the images of each class, among `images`.
      level: number of folders that lead to an image in a class folder, 1 or 2.
      is_only: True if there is one class only, in all splits.

    Returns:
      The reason why classes cannot be told apart, "" if they can; and a doubt to warn of, or "".
    """
    inside = {name: group_by_folder(images, positions, level) for name, positions in classes.items()}
    nested = {name: list(folders) for name, (folders, free) in inside.items() if not free and len(folders) > 1}
    if not nested:
        return "", ""
    name, folders = next(iter(nested.items()))
    path = root / printable("/".join(images[classes[name].start].split("/")[:level]))
    holds = f"holds only folders, such as {printable(folders[0])} and {printable(folders[1])}"
    if is_only:
        return f"{path} is the only class folder, but it {holds}: give that folder, or move its folders up", ""
    if direct := [name for name, (_, free) in inside.items() if free]:
        return (
            f"{path} {holds}, but {printable(direct[0])} beside it holds images: move the images of a class into its "
            "folder",
            "",
        )
    for one, other in itertools.combinations(itertools.islice(nested, _COMPARED), 2):
        shared = [folder for folder in nested[one] if folder in nested[other]]
        if len(shared) > 1 and level == 1:
            return (
                f"{path.parent / printable(one)} and {printable(other)} hold only folders, such as "
                f"{printable(shared[0])} and {printable(shared[1])}, so either may be the classes: rename the folders "
                "of a split to train and test, or move the images of a class into its folder",
                "",
            )
    return "", f"{path} {holds}: all its images count as the class {printable(name)}"


def group_by_folder(images: Sequence[str], positions: range, level: int) -> tuple[dict[str, range], list[int]]:
    """Groups images by the folder at a level of their paths.

    Returns:
      The positions of the images below each folder, and the positions of the images without a folder at this level.
    """
    folders: dict[str, range] = {}
    free = []

    def name(position: int) -> str:
        parts = images[position].split("/", level + 1)
        return parts[level] if len(parts) > level + 1 else ""

    for key, members in itertools.groupby(positions, name):
        if key:
            first = next(members)
            folders[key] = range(first, first + 1 + sum(1 for _ in members))
        else:
            free += members
    return folders, free


def printable(name: str) -> str:
    """Returns a file's name for a message; characters that would spoil the line are escaped."""
    return name if name.isprintable() else name.encode("unicode_escape", "backslashreplace").decode()
