"""Arguments of the commands that plan or measure a training step: sizes, and its division among devices."""

import argparse

from ppvit_jax.command_line import Number
from ppvit_jax.config import REDUCE_DTYPES
from ppvit_jax.errors import COUNT, COUNT_OR_NONE, SIDE
from ppvit_jax.models import REMATS


def add_image_size(parser: argparse.ArgumentParser) -> None:
    """Adds --image-size."""
    parser.add_argument(
        "--image-size",
        action=Number,
        range=SIDE,
        default=224,
        metavar="PIXELS",
        help="side of an image in pixels (default: %(default)s)",
    )


def add_sizes(parser: argparse.ArgumentParser, *, classes: int) -> None:
    """Adds --image-size, and --classes with this default."""
    add_image_size(parser)
    parser.add_argument(
        "--classes",
        action=Number,
        range=COUNT,
        default=classes,
        metavar="N",
        help="number of classes (default: %(default)s)",
    )


def add_division(parser: argparse.ArgumentParser, *, sharding: str) -> None:
    """Adds --sharding with this default, --reduce-dtype and --accumulation, which is 0 by default."""
    parser.add_argument(
        "--sharding",
        default=sharding,
        metavar="NAMES",
        help="ways to divide the training state, as config.sharding names them, separated by commas "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--reduce-dtype",
        choices=REDUCE_DTYPES,
        default=REDUCE_DTYPES[0],
        help="dtype in which devices add up their gradients, as config.reduce_dtype (default: %(default)s)",
    )
    parser.add_argument(
        "--accumulation",
        action=Number,
        range=COUNT_OR_NONE,
        default=0,
        metavar="N",
        help="number of parts in which a step computes its batch, as config.accumulation; 0 for the number that a run "
        "chooses (default: %(default)s)",
    )


def add_remat(parser: argparse.ArgumentParser) -> None:
    """Adds --remat."""
    parser.add_argument(
        "--remat",
        choices=REMATS,
        default=REMATS[0],
        help="values that the backward pass computes again, as config.remat (default: %(default)s)",
    )
