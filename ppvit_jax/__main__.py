"""Commands beside fine-tuning: python -m ppvit_jax COMMAND, or ppvit COMMAND (see --help)."""

import argparse
import importlib
import sys

from ppvit_jax.commands.shared.command_line import run_program
from ppvit_jax.errors import UserError

# The module of a command has its name, and is loaded when it is run: what is for the cloud never loads a key's module.
_COMMANDS = {
    "keygen": "owner: make a secret key",
    "encrypt": "owner: encrypt images",
    "decrypt": "owner: undo the encryption of images",
    "adapt": "owner: adapt a plain model to encrypted images",
    "restore": "owner: make a plain model of an adapted one",
    "rekey": "owner: move an adapted model to another key",
    "predict": "cloud: a model's predictions on images, without any key",
    "audit": "attacks on what the cloud is given, and how much they recover",
    "info": "what a checkpoint, a key or a folder of images is; never secrets",
    "reproduce": "a table or figure of the paper, or one beyond it, measured",
    "prepare": "a public data set, made readable without TensorFlow",
    "benchmark": "speed and memory of training steps, plain beside encrypted",
    "scaling": "memory and traffic of training steps on many devices, by arithmetic",
}


def main(arguments: list[str]) -> None:
    """Parses the arguments and runs the command.

    Raises:
      UserError: anything that the user can put right.
    """
    parser = argparse.ArgumentParser(
        prog="ppvit",
        description="Fine-tune Vision Transformers on images permuted with a secret key.",
        epilog="Fine-tuning itself, in the cloud: python -m ppvit_jax.main --help",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules = {}
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        command.set_defaults(program=command.prog, takes_overrides=False)
        if name == next((text for text in arguments if not text.startswith("-")), None):
            modules[name] = importlib.import_module(f"ppvit_jax.commands.{name}")
            modules[name].add_arguments(command)
    if "reproduce" in modules:
        arguments = modules["reproduce"].translate_former_spelling(arguments)
    parsed, overrides = parser.parse_known_args(arguments)
    if unknown := [text for text in overrides if not (parsed.takes_overrides and text.startswith("--config."))]:
        raise UserError(f"unknown arguments {' '.join(unknown)}: see {parsed.program} --help")
    parsed.overrides = overrides
    modules[parsed.command].run(parsed)


def console_script() -> int:
    """The entry point `ppvit`; returns the exit status."""
    return run_program(main)


if __name__ == "__main__":
    sys.exit(console_script())
