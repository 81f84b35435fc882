"""The command `ppvit convert`: checkpoints of other programs to Google's `.npz` layout, and back."""

import argparse
import importlib

from checkpoints_convert import CONVERTERS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a subcommand for each conversion, such as timm-to-npz."""
    subcommands = parser.add_subparsers(required=True, metavar="CONVERSION")
    for name in CONVERTERS:
        converter = importlib.import_module(f"checkpoints_convert.{name}").CONVERTER
        subcommand = subcommands.add_parser(
            name.replace("_", "-"), help=converter.description, description=converter.description
        )
        converter.add_arguments(subcommand)
        subcommand.set_defaults(program=subcommand.prog, convert=converter.run)


def run(arguments: argparse.Namespace) -> None:
    """Converts SOURCE to TARGET.

    Raises:
      UserError: anything that the user can put right.
    """
    arguments.convert(arguments)
