"""Commands beside fine-tuning: python -m ppvit_jax COMMAND (see --help)."""

import argparse
import sys

from ppvit_jax import benchmark, prepare, reproduce
from ppvit_jax.errors import UserError
from ppvit_jax.main import run_command

_COMMANDS = {
    "reproduce": (reproduce, "a table of the paper with its figures, measured"),
    "prepare": (prepare, "a public data set, made readable without TensorFlow"),
    "benchmark": (benchmark, "speed and memory of training steps, plain beside encrypted"),
}


def main(arguments: list[str]) -> None:
    """Parses the arguments and runs the command.

    Raises:
      UserError: anything that the user can put right.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ppvit_jax",
        description="Fine-tune Vision Transformers on images permuted with a secret key.",
        epilog="Fine-tuning itself: python -m ppvit_jax.main --help",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, text) in _COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=text, description=f"{name}: {text}."))
    known, overrides = parser.parse_known_args(arguments)
    if unknown := [text for text in overrides if known.command != "reproduce" or not text.startswith("--config.")]:
        raise UserError(f"unknown arguments {' '.join(unknown)}: see python -m ppvit_jax {known.command} --help")
    known.overrides = overrides
    _COMMANDS[known.command][0].run(known)


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
