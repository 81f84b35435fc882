"""Options that name labeled images in a CSV list, Parquet files or WebDataset's tar files."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from ppvit_jax.data.labeled.examples import Collection, Columns
from ppvit_jax.data.labeled.formats import FORMATS
from ppvit_jax.errors import UserError
from ppvit_jax.files import local_path

# Names of the options, for help and messages.
OPTIONS = ", ".join(f"--{name}" for name in FORMATS)


@dataclasses.dataclass(frozen=True)
class LabeledInput:
    """Images that --parquet, --webdataset or --csv names.

    Attributes:
      format: one of `FORMATS`.
      path: the file, folder or pattern.
      columns: values of --image-column and --label-column.
      splits: values of --splits; empty for all.
    """

    format: str
    path: Path
    columns: Columns
    splits: tuple[str, ...] = ()

    def open(self, *, labeled: bool) -> Collection:
        """Opens the input; `labeled` is True if every image needs a label.

        Raises:
          UserError: it is missing, damaged or wrong.
        """
        return FORMATS[self.format].open(self.path, self.columns, labeled=labeled)


def add_formats(group: argparse._MutuallyExclusiveGroup) -> None:
    """Adds an option for each format beside --input."""
    for name, form in FORMATS.items():
        group.add_argument(f"--{name}", metavar="PATH", help=form.help)


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Adds --image-column and --label-column."""
    for name, text in (("image", "images in Parquet, or of their paths in a CSV"), ("label", "labels")):
        parser.add_argument(
            f"--{name}-column",
            default="",
            metavar="NAME",
            help=f"column of the {text} (default: the usual names, such as {name})",
        )


def parse_format(arguments: argparse.Namespace) -> LabeledInput | None:
    """Returns the input that an option names; None if it is another one, such as --input.

    Raises:
      UserError: an option of such inputs stands beside another input, or the path is a URL.
    """
    columns = Columns(arguments.image_column, arguments.label_column)
    for name in FORMATS:
        if path := getattr(arguments, name):
            splits = tuple(split for split in getattr(arguments, "splits", "").split(",") if split)
            return LabeledInput(name, local_path(path), columns, splits)
    if columns != Columns() or ("tfds" not in arguments and arguments.splits):
        raise UserError(f"--splits, --image-column and --label-column need one of {OPTIONS}: leave them out")
    return None
