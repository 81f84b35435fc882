"""The command `ppvit reproduce`: a table of the paper, or one that goes beyond it, measured."""

import argparse
from pathlib import Path

from ppvit_jax import config as configuration
from ppvit_jax.commands.shared.output import results_folder
from ppvit_jax.errors import UserError
from ppvit_jax.experiments import access, adaptation_table, gallery, table1, tables_2_and_3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    names = ",".join(arm.name for arm in table1.ARMS)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--table",
        choices=("1", "2", "3", "access", "adaptation"),
        help="1, 2, 3: the paper's tables; access: a tuned model's accuracy with the right key, wrong keys and none; "
        "adaptation: every encryption, adapted and not, on one model",
    )
    what.add_argument("--figure", choices=("gallery",), help="gallery: one image under every encryption")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="such as configs/demo.py; for tables 2 and 3 a folder (configs/tableN)",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for results; the same one continues")
    parser.add_argument("--arms", default=names, metavar="NAMES", help=f"for table 1, a part of {names}")
    parser.add_argument("--wrong-keys", type=int, default=10, metavar="N", help="for access (default: %(default)s)")
    parser.add_argument("--rows", default="", metavar="NAMES", help="for tables 2, 3 and adaptation, a part of them")
    parser.add_argument(
        "--budget", type=float, metavar="MINUTES", help="for tables 2 and 3: scale all rows together down to this time"
    )
    parser.add_argument("--image", metavar="FILE", help="for the gallery (default: a photograph in scikit-learn)")
    parser.add_argument("--key", metavar="FILE", help="for the gallery (default: a new key, which is not kept)")
    parser.add_argument("--image-size", type=int, default=224, help="for the gallery (default: %(default)s)")
    parser.add_argument("--block-size", type=int, default=16, help="for the gallery (default: %(default)s)")
    parser.epilog = "Any field of the configuration can be set: --config.epochs=3 --config.data.dir=DIR"


def run(arguments: argparse.Namespace) -> None:
    """Measures the table and writes it with its pictures.

    Raises:
      UserError: anything that the user can put right.
    """
    output = results_folder(arguments.output)
    if arguments.figure == "gallery":
        gallery.run(arguments.image, arguments.key, arguments.image_size, arguments.block_size, output)
    elif arguments.table in tables_2_and_3.TABLES:
        folder = Path(arguments.config or f"configs/table{arguments.table}").expanduser()
        rows = arguments.rows
        tables_2_and_3.run(arguments.table, folder, arguments.overrides, output, rows, arguments.budget)
    elif arguments.config is None:
        raise UserError(f"table {arguments.table} needs a configuration: give one such as --config=configs/demo.py")
    else:
        config = configuration.load(arguments.config, arguments.overrides)
        if arguments.table == "1":
            table1.run(config, output, arguments.arms.split(","))
        elif arguments.table == "access":
            access.run(config, output, arguments.wrong_keys)
        else:
            adaptation_table.run(config, output, arguments.rows)
