"""The command `ppvit reproduce`: a table of the paper, or one that goes beyond it, measured."""

import argparse
from pathlib import Path

from ppvit_jax import config as configuration
from ppvit_jax.errors import UserError
from ppvit_jax.tables import access, table_1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    names = ",".join(arm.name for arm in table_1.ARMS)
    parser.add_argument(
        "--table",
        choices=("1", "access"),
        required=True,
        help="1: the paper's Table I; access: a tuned model's accuracy with the right key, wrong keys and none",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="such as configs/demo.py")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for results; the same one continues")
    parser.add_argument("--arms", default=names, metavar="NAMES", help=f"for table 1, a part of {names}")
    parser.add_argument("--wrong-keys", type=int, default=10, metavar="N", help="for access (default: %(default)s)")
    parser.epilog = "Any field of the configuration can be set: --config.epochs=3 --config.data.dir=DIR"


def run(arguments: argparse.Namespace) -> None:
    """Measures the table and writes it with its pictures.

    Raises:
      UserError: anything that the user can put right.
    """
    config = configuration.load(arguments.config, arguments.overrides)
    output = Path(arguments.output).expanduser()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot use the output folder {output}: {error.strerror}") from None
    if arguments.table == "1":
        table_1.run(config, output, arguments.arms.split(","))
    else:
        access.run(config, output, arguments.wrong_keys)
