"""The command `ppvit prepare`: public data sets, made ready for the other commands."""

from __future__ import annotations

import argparse
from pathlib import Path

from ppvit_jax.data import cifar, embedded
from ppvit_jax.data.export import write_image_folder
from ppvit_jax.data.tfds_source import data_root
from ppvit_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments: the data set's name, --output, --data-dir, --archive."""
    parser.add_argument("name", choices=(*cifar.NAMES, *embedded.NAMES), help="the data set")
    parser.add_argument(
        "--output",
        metavar="DIR",
        help=f"new folder of class folders to write, for {' and '.join(embedded.NAMES)}, which are in the package",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of prepared data sets, for CIFAR (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--archive",
        metavar="FILE",
        help="the published .tar.gz of CIFAR's binary version (default: the command downloads it)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Prepares the data set and prints its folder.

    Raises:
      UserError: an option of the other data sets, or see `cifar.prepare` and `write_image_folder`.
    """
    name = arguments.name
    if name in embedded.NAMES:
        _refuse(name, {"--data-dir": arguments.data_dir, "--archive": arguments.archive}, "use --output DIR")
        if not arguments.output:
            raise UserError(f"{name} becomes a folder of images: name a new one with --output DIR")
        folder = Path(arguments.output)
        write_image_folder(embedded.load_set(name), folder)
    else:
        _refuse(name, {"--output": arguments.output}, "use --data-dir DIR")
        folder = cifar.prepare(name, data_root(arguments.data_dir or ""), arguments.archive)
    print(f"{name} is in {folder}")


def _refuse(name: str, options: dict[str, str | None], instead: str) -> None:
    """Raises UserError if an option is used that this data set does not take."""
    if used := [option for option, value in options.items() if value]:
        raise UserError(f"{name} takes no {' and no '.join(used)}: {instead}")
