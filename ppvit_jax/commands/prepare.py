"""The command `ppvit prepare`: prepares public data sets, so that they can be read without TensorFlow."""

from __future__ import annotations

import argparse

from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.data import cifar
from ppvit_jax.data.tfds_source import data_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments and description."""
    describe(
        parser,
        "Prepares a public data set, so that tfds reads it without TensorFlow. Anyone can run it, once: it downloads "
        "the published archive, and writes the data set to the folder of data sets.",
        "ppvit prepare cifar10",
    )
    parser.add_argument("name", choices=cifar.NAMES, help="data set to prepare")
    parser.add_argument(
        "--data-dir",
        default="",
        metavar="DIR",
        help="folder of data sets to write to (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--archive",
        metavar="FILE",
        help="published archive of the binary version, a .tar.gz that you have already (default: download it)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Prepares the data set and prints its folder.

    Raises:
      UserError: see `ppvit_jax.data.cifar.prepare`.
    """
    folder = cifar.prepare(arguments.name, data_root(arguments.data_dir), arguments.archive)
    print(f"{arguments.name} is in {folder}")
