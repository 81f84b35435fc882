"""The command `ppvit prepare`: public data sets, made readable without TensorFlow."""

from __future__ import annotations

import argparse

from ppvit_jax.data import cifar
from ppvit_jax.data.tfds_source import data_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments: the data set's name, --data-dir, --archive."""
    parser.add_argument("name", choices=cifar.NAMES, help="the data set")
    parser.add_argument(
        "--data-dir",
        default="",
        metavar="DIR",
        help="folder of prepared data sets (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--archive",
        metavar="FILE",
        help="the published .tar.gz of the binary version, if you have it; otherwise it is downloaded",
    )


def run(arguments: argparse.Namespace) -> None:
    """Prepares the data set and prints its folder.

    Raises:
      UserError: see `ppvit_jax.data.cifar.prepare`.
    """
    folder = cifar.prepare(arguments.name, data_root(arguments.data_dir), arguments.archive)
    print(f"{arguments.name} is in {folder}")
