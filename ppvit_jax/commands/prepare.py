"""The command `ppvit prepare`: prepares public data sets for the other commands."""

from __future__ import annotations

import argparse
from pathlib import Path

from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.data import cifar, embedded
from ppvit_jax.data.export import write_image_folder
from ppvit_jax.data.source import Dataset
from ppvit_jax.data.tfds_source import data_root
from ppvit_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments and description."""
    describe(
        parser,
        "Prepares a public data set. CIFAR is downloaded and written to the folder of data sets, so that tfds reads it "
        "without TensorFlow. A data set in the package becomes a folder of images.",
        "ppvit prepare photographs --output images",
        "ppvit prepare cifar10",
    )
    in_package = " and ".join(embedded.DATASETS)
    parser.add_argument("name", choices=(*embedded.DATASETS, *cifar.NAMES), help="data set to prepare")
    parser.add_argument(
        "--output", metavar="DIR", help=f"new folder for the images of {in_package}, with train/CLASS and test/CLASS"
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of data sets to write CIFAR to (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--archive",
        metavar="FILE",
        help="CIFAR's published archive of the binary version, a .tar.gz that you have already (default: download it)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Prepares the data set and prints its folder.

    Raises:
      UserError: an option of the other data sets; see also `cifar.prepare` and `write_image_folder`.
    """
    name = arguments.name
    if name in embedded.DATASETS:
        _refuse(name, {"--data-dir": arguments.data_dir, "--archive": arguments.archive}, "use --output DIR")
        if not arguments.output:
            raise UserError(f"{name} becomes a folder of images: name a new folder with --output DIR")
        folder = Path(arguments.output)
        write_image_folder(Dataset(name, *embedded.DATASETS[name]()), folder)
    else:
        _refuse(name, {"--output": arguments.output}, "use --data-dir DIR")
        folder = cifar.prepare(name, data_root(arguments.data_dir or ""), arguments.archive)
    print(f"{name} is in {folder}")


def _refuse(name: str, options: dict[str, str | None], instead: str) -> None:
    """Raises UserError if an option is used that this data set does not take."""
    if used := [option for option, value in options.items() if value]:
        raise UserError(f"{name} takes no {' and no '.join(used)}: {instead}")
