"""The command `ppvit reproduce`: measures the paper's tables and figures, and some that go beyond it."""

import argparse
import sys

from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.commands.shared.output import results_in
from ppvit_jax.errors import is_installed, resuming
from ppvit_jax.experiments import access, adaptation_table, gallery, table1, tables_2_and_3

REPRODUCTIONS = (
    table1.REPRODUCTION,
    *tables_2_and_3.REPRODUCTIONS,
    access.REPRODUCTION,
    adaptation_table.REPRODUCTION,
    gallery.REPRODUCTION,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a subcommand for each table and figure."""
    describe(
        parser,
        "Trains and measures what a table or figure of the paper shows, or goes beyond it, and writes the result to a "
        "folder. It is an experiment in one process, which holds the key. The former --table=2 and --figure=gallery "
        "still work in place of table2 and gallery.",
        "ppvit reproduce table1 --config configs/demo.py --output runs/table1",
        "ppvit reproduce gallery --output runs/gallery",
    )
    subcommands = parser.add_subparsers(required=True, metavar="NAME")
    for reproduction in REPRODUCTIONS:
        text = reproduction.help
        subcommand = subcommands.add_parser(reproduction.name, help=text, allow_abbrev=False)
        subcommand.add_argument(
            "--output",
            required=True,
            metavar="DIR",
            help="folder to write the results to: a new one, or that of an interrupted run of the same command, which "
            "resumes",
        )
        reproduction.add_arguments(subcommand)
        command = f"ppvit reproduce {reproduction.name} --output runs/{reproduction.name}"
        describe(subcommand, f"Makes {text}.", " ".join([command, *reproduction.example]))
        subcommand.set_defaults(program=subcommand.prog, reproduction=reproduction)


@resuming()
def run(arguments: argparse.Namespace) -> None:
    """Measures the table or figure, and writes it.

    Raises:
      UserError: the arguments or files cannot be used.
    """
    if not is_installed("matplotlib"):
        print(
            "matplotlib is not installed, so no pictures are drawn: to have them, run pip install 'ppvit-jax[tables]' "
            "and then this command again",
            file=sys.stderr,
        )
    with results_in(arguments.output) as output:
        arguments.reproduction.run(arguments, output)


def translate_former_spelling(arguments: list[str]) -> list[str]:
    """Returns the arguments with `--table=2` or `--figure=gallery` replaced by the subcommand `table2` or `gallery`."""
    former = argparse.ArgumentParser(prog="ppvit reproduce", add_help=False, allow_abbrev=False)
    choice = former.add_mutually_exclusive_group()
    choice.add_argument("--table", choices=("1", "2", "3", "access", "adaptation"))
    choice.add_argument("--figure", choices=("gallery",))
    parsed, rest = former.parse_known_args(arguments)
    if not (name := parsed.figure or parsed.table):
        return arguments
    rest.remove("reproduce")
    return ["reproduce", f"table{name}" if name.isdigit() else name, *rest]
