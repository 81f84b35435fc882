"""Lists of class names beside the files of a data set: classes.txt or classes.json."""

from __future__ import annotations

import json
from pathlib import Path

from ppvit_jax.errors import UserError

_FORMS = "a list of names, or an object that has the number of each name"


def read_class_names(folder: Path) -> tuple[str, ...]:
    """Reads the class names of a folder, class 0 first.

    classes.txt has one name in each line. classes.json has a list of names, or the number of each name, or the name of
    each number.

    Args:
      folder: the folder.

    Returns:
      The names; empty if there is no such file.

    Raises:
      UserError: the file cannot be read, or it leaves a number out.
    """
    for name, parse in (("classes.txt", _parse_lines), ("classes.json", _parse_json)):
        file = folder / name
        if file.is_file():
            try:
                names = parse(file.read_text("utf-8-sig"))
            except OSError as error:
                raise UserError(f"cannot read {file} ({error.strerror}): replace it") from None
            except (ValueError, RecursionError):
                expected = "one name in each line, in UTF-8" if parse is _parse_lines else _FORMS
                raise UserError(f"{file} does not list class names: write {expected}") from None
            if len(set(names)) < len(names):
                twin = next(name for number, name in enumerate(names) if name in names[:number])
                raise UserError(f"{file} has two classes of the name {twin!r}: rename one")
            return names
    return ()


def _parse_lines(text: str) -> tuple[str, ...]:
    names = tuple(line.strip() for line in text.strip().splitlines())
    if not all(names) or not names:
        raise ValueError("a line is empty")
    return names


def _parse_json(text: str) -> tuple[str, ...]:
    content = json.loads(text)
    if isinstance(content, dict):
        pairs = [(name, value) if isinstance(value, int) else (value, int(name)) for name, value in content.items()]
        if sorted(number for _, number in pairs) != list(range(len(pairs))):
            raise ValueError("the numbers have gaps")
        content = [name for name, _ in sorted(pairs, key=lambda pair: pair[1])]
    if not isinstance(content, list) or not content or not all(isinstance(name, str) and name for name in content):
        raise ValueError("not a list of names")
    return tuple(content)
