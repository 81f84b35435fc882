"""The command `ppvit convert`: checkpoints of other programs to Google's `.npz` layout, and back."""

import argparse
import importlib

from checkpoints_convert import CONVERTERS
from ppvit_jax.commands.shared.help_text import describe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a subcommand for each conversion, such as timm-to-npz."""
    describe(
        parser,
        "Converts checkpoints between Google's .npz layout and other programs. Anyone can run it: it needs no key.",
        "ppvit convert timm-to-npz model.safetensors ViT-B_16.npz",
    )
    subcommands = parser.add_subparsers(required=True, metavar="CONVERSION")
    for name in CONVERTERS:
        converter = importlib.import_module(f"checkpoints_convert.{name}").CONVERTER
        subcommand = subcommands.add_parser(name.replace("_", "-"), help=converter.description, allow_abbrev=False)
        converter.add_arguments(subcommand)
        subcommand.set_defaults(program=subcommand.prog, convert=converter.run)


def run(arguments: argparse.Namespace) -> None:
    """Converts SOURCE to TARGET.

    Raises:
      UserError: a mistake that the user can correct.
    """
    arguments.convert(arguments)
