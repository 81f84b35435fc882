"""The program `ppvit`, or python -m ppvit_jax: ppvit COMMAND ... (see --help)."""

import argparse
import importlib
import sys

from ppvit_jax import __version__
from ppvit_jax.command_line import run_program
from ppvit_jax.commands import COMMANDS
from ppvit_jax.commands.shared.unknown_options import refuse_unknown_options
from ppvit_jax.errors import UserError


def main(arguments: list[str]) -> None:
    """Parses the arguments and runs the command.

    Raises:
      UserError: a mistake that the user can correct.
      SystemExit: after --help or --version, or with status 2 if no command is named or its arguments are wrong.
    """
    parser = argparse.ArgumentParser(
        prog="ppvit",
        usage="ppvit COMMAND ...",
        description="Fine-tune Vision Transformers on images that are encrypted with a secret key.",
        epilog="The owner of the images holds the key; the cloud never needs it. See also: ppvit COMMAND --help",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=17),
    )
    version = f"ppvit {__version__}"
    parser.add_argument("-V", "--version", action="version", version=version, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND", prog="ppvit")
    modules = {}
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        command.set_defaults(program=command.prog, overrides_start_with=None)
        if name == next((text for text in arguments if not text.startswith("-")), None):
            modules[name] = importlib.import_module(f"ppvit_jax.commands.{name}")
            modules[name].add_arguments(command)
    if not arguments:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    if "reproduce" in modules:
        arguments = modules["reproduce"].translate_former_spelling(arguments)
    if modules:
        refuse_unknown_options(parser, arguments)
    parsed, overrides = parser.parse_known_args(arguments)
    start = parsed.overrides_start_with
    if unknown := [text for text in overrides if start is None or not text.startswith(start)]:
        raise UserError(f"unknown arguments {' '.join(unknown)}: see {parsed.program} --help")
    parsed.overrides = overrides
    modules[parsed.command].run(parsed)


def console_script() -> int:
    """The entry point `ppvit`; returns the exit status."""
    return run_program(main)


if __name__ == "__main__":
    sys.exit(console_script())
