"""Metadata record of a converted model: the foreign file's own fields, a former export's, and the command's options."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppvit_jax.checkpoint import Metadata
from ppvit_jax.checkpoint.metadata import STANDARD
from ppvit_jax.command_line import Number
from ppvit_jax.errors import Range, UserError, print_note

# Fields of the record that a foreign program's own files can have, in words.
_TITLES = {
    "class_names": "class names",
    "mean": "the mean",
    "std": "the standard deviation",
    "resize": "the resizing",
    "model_options": "the activation and epsilon",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds --mean, --std and --class-names."""
    for name in ("mean", "std"):
        parser.add_argument(
            f"--{name}",
            action=Number,
            range=Range() if name == "mean" else Range(above=0),
            nargs=3,
            metavar=("R", "G", "B"),
            help=f"{name} of the normalization of images from 0 to 1 (default: as recorded, or 0.5)",
        )
    parser.add_argument(
        "--class-names",
        type=Path,
        metavar="FILE",
        help="text file with the names of the classes in order, one a line (default: as recorded)",
    )


def merge(former: Metadata | None, own: Mapping[str, Any], *, where: str) -> Metadata:
    """Returns the record of a foreign file. Its own fields decide over those that a former export left in it.

    Args:
      former: the record that a former export left, or None.
      own: values of record fields from the foreign program's own files.
      where: the file's name, for the notes about fields that differ.
    """
    record = former or Metadata()
    for name, value in own.items():
        before = _exported(record, name)
        if former is None or before != value:
            record = dataclasses.replace(record, **{name: value})
        if former is not None and before != value:
            old, new = _shorten(before, value)
            print_note(
                f"{where} has {_TITLES[name]} {new}, but its field ppvit, of a former export, has {old}: "
                "the file's own value is kept"
            )
    return record


def apply_options(record: Metadata, arguments: argparse.Namespace, *, num_classes: int, where: str) -> Metadata:
    """Returns the record with the values of --mean, --std and --class-names, and prints the normalization assumed.

    Raises:
      UserError: a value is impossible, or the names cannot be read or are not as many as the head's outputs.
    """
    if (arguments.mean is None) != (arguments.std is None):
        raise UserError("--mean and --std belong together: give both or neither")
    if arguments.class_names is not None:
        names = _read_names(arguments.class_names.expanduser())
        if len(names) != num_classes:
            raise UserError(
                f"--class-names {arguments.class_names} has {len(names)} names, but the head {num_classes} outputs: "
                "give one name an output"
            )
        record = dataclasses.replace(record, class_names=names)
    if arguments.mean is not None:
        if not is_normalization(arguments.mean, arguments.std):
            raise UserError(
                f"--mean {arguments.mean} and --std {arguments.std} are no normalization of values from 0 to 1: divide "
                "those of values from 0 to 255 by 255; std must be positive"
            )
        return dataclasses.replace(record, mean=tuple(arguments.mean), std=tuple(arguments.std))
    if not record.mean:
        print_note(
            f"{where} does not record its normalization, so mean and std 0.5 are assumed: --mean and --std set others"
        )
    return record


def is_normalization(mean: Sequence[float], std: Sequence[float]) -> bool:
    """Returns True if mean and standard deviation can belong to pixel values from 0 to 1, rather than 0 to 255."""
    return all(abs(number) <= 10 for number in mean) and all(0 < number <= 10 for number in std)


def fit(record: Metadata, *, model: str, image_size: int, num_classes: int, where: str) -> Metadata:
    """Returns the record with the model's name and image size, which the arrays decide, and names that fit its head.

    Args:
      record: the record that came with the arrays.
      model: the name that the arrays tell, or "".
      image_size: the size that the arrays tell.
      num_classes: outputs of the head; 0 for a model without a head, which has no class names.
      where: the file's name, for messages.
    """
    if record.model.replace("_", "/") == model:
        model = record.model
    for name, old, new in (("model", record.model, model), ("image size", record.image_size, image_size)):
        if old and new != old:
            print_note(
                f"the record in {where} has the {name} {old}, but its arrays have {new or 'another'}: the arrays decide"
            )
    names = record.class_names
    if names and num_classes and len(names) != num_classes:
        print_note(
            f"the record in {where} has {len(names)} class names, but its head has {num_classes} outputs: the names "
            "are left out"
        )
    names = names if len(names) == num_classes else ()
    return dataclasses.replace(record, model=model, image_size=image_size, class_names=names)


def _exported(record: Metadata, name: str) -> Any:
    """Returns the value that an export of the record writes where the record has none."""
    if name in ("mean", "std"):
        return getattr(record, name) or STANDARD
    return record.resize or "squash" if name == "resize" else getattr(record, name)


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise UserError(f"cannot read --class-names {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"--class-names {path} is not UTF-8 text: give a text file with one name a line") from None
    while names and not names[-1]:
        names = names[:-1]
    if not names or "" in names:
        raise UserError(f"--class-names {path} has an empty line: give one name a line, in the order of the outputs")
    return names


def _shorten(before: Any, value: Any) -> tuple[str, str]:
    """Shows two different values; lists of names by the first output that differs."""
    if not isinstance(value, tuple) or not any(isinstance(item, str) for item in (*before, *value)):
        return str(before or "the defaults"), str(value or "the defaults")
    if len(before) != len(value):
        return f"{len(before)} of them", f"{len(value)} of them"
    place = next(i for i in range(len(value)) if before[i] != value[i])
    return repr(before[place]), f"{value[place]!r} for output {place}"
