"""Files of a data set in several files, such as train-00000-of-00002.parquet, by the split that they belong to."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ppvit_jax.data.splits import split_role
from ppvit_jax.errors import UserError

_NUMBERED = re.compile(r"(.+)-(\d{5})-of-(\d{5})")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_FILES = 100_000


def list_shards(path: Path, ending: str) -> tuple[Path, dict[str, list[Path]]]:
    """Lists the files of a data set.

    A file's split is the part of its name before "-00000-of-00002", or the usual spelling of a split among its folders
    or the words of its name.

    Args:
      path: a folder, a file, or a pattern such as "train-{000000..000009}.tar".
      ending: the ending of the files, such as ".tar".

    Returns:
      The folder that names of the files begin at, and the files of each split, in order. Files without splits have
      the split "".

    Raises:
      UserError: there is no such file, a file of a series is missing, or the files are not of one data set.
    """
    if path.is_dir():
        root, files = path, sorted(file for file in path.rglob(f"*{ending}") if not _is_hidden(file, path))
        if not files:
            raise UserError(f"{path} has no {ending} files: give the folder that holds them")
        _check_series(files)
    else:
        files = [Path(text) for text in expand_braces(str(path))]
        root = Path(os.path.commonpath([file.parent for file in files]))
    for file in files:
        if not file.is_file():
            raise UserError(f"there is no {file}: give a folder, a {ending} file, or a pattern with {{000..009}}")
    names = [file.relative_to(root).as_posix() for file in files]
    splits: dict[str, list[Path]] = {}
    for file, name in zip(files, names, strict=True):
        splits.setdefault(_split_of(name, ending), []).append(file)
    if len(splits) > 1 and "" in splits:
        raise UserError(
            f"{splits[''][0]} belongs to no split, but other files do: name it like train-00000-of-00001{ending}, or "
            "move it away"
        )
    if len(splits) == 1 and not split_role(next(iter(splits))):
        splits = {"": files}
    if path.is_dir():
        _check_one_set(root, names, ending)
    return root, splits


def expand_braces(pattern: str) -> list[str]:
    """Returns the texts that a pattern stands for: "a-{08..10}" for a-08, a-09 and a-10, "{a,b}" for a and b.

    Raises:
      UserError: a range descends, or the pattern stands for too many files.
    """
    pieces = _BRACES.split(pattern)
    choices: list[Sequence[str]] = []
    for number, piece in enumerate(pieces):
        bounds = _RANGE.fullmatch(piece)
        if number % 2 == 0:
            choices.append([piece])
        elif bounds is None:
            choices.append(piece.split(","))
        else:
            first, last = int(bounds[1]), int(bounds[2])
            if not first <= last < first + _MOST_FILES:
                raise UserError(
                    f"the range {{{piece}}} in {pattern} is empty or too long: count up, as in {{000..009}}"
                )
            choices.append([f"{value:0{len(bounds[1])}}" for value in range(first, last + 1)])
    return ["".join(parts) for parts in itertools.product(*choices)]


def _is_hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _split_of(name: str, ending: str) -> str:
    *folders, file = name.removesuffix(ending).split("/")
    if series := _NUMBERED.match(file):
        words = [word for word in re.split(r"[-_.]", series[1]) if split_role(word)]
        return words[0] if len(words) == 1 else series[1]
    for folder in reversed(folders):
        if split_role(folder):
            return folder
    words = [word for word in re.split(r"[-_.]|(?<=\D)(?=\d)", file) if split_role(word)]
    return words[0] if len(words) == 1 else ""


def _check_series(files: Sequence[Path]) -> None:
    """Makes sure that a series such as train-00000-of-00002 is complete."""
    present: dict[tuple[Path, str, str], set[int]] = {}
    for file in files:
        # Files from the Hugging Face hub may have a hash behind the numbers.
        if series := _NUMBERED.match(file.name):
            present.setdefault((file.parent, series[1], series[3]), set()).add(int(series[2]))
    for (folder, name, total), numbers in present.items():
        if missing := set(range(int(total))) - numbers:
            file = folder / f"{name}-{min(missing):05d}-of-{total}"
            raise UserError(f"{file} is missing: get it again, or give a pattern of the files that you want")


def _check_one_set(root: Path, names: Sequence[str], ending: str) -> None:
    """Makes sure that the folders of files differ by the names of splits alone."""
    places = {tuple(part for part in name.split("/")[:-1] if not split_role(part)) for name in names}
    if len(places) > 1:
        one, other = ("/".join(place) or "the folder itself" for place in sorted(places)[:2])
        raise UserError(f"{root} has {ending} files of several data sets, in {one} and {other}: give the folder of one")
