"""Declaration of a table or figure as a subcommand of `ppvit reproduce` with its own flags."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

from ppvit_jax import config as configuration
from ppvit_jax.config import Config
from ppvit_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """A table or figure that `ppvit reproduce NAME` measures.

    name: name of the subcommand.
    help: one line for --help, in lower case unless it starts with a name.
    add_arguments: adds the subcommand's own flags; --output is there already.
    run: measures, and writes the results to the output folder.
    example: arguments, beside --output, of the example in --help.
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Path], None]
    example: tuple[str, ...] = ()


def add_config_argument(parser: argparse.ArgumentParser, text: str = "configuration, such as configs/demo.py") -> None:
    """Adds --config, and lets `--config.FIELD=VALUE` through as `overrides`."""
    parser.add_argument("--config", metavar="FILE", help=text)
    parser.set_defaults(overrides_start_with="--config.")
    parser.epilog = "You can set any field of the configuration: --config.epochs=3 --config.data.dir=DIR"


def load_config(arguments: argparse.Namespace) -> Config:
    """Loads the configuration of --config with its overrides.

    Raises:
      UserError: --config is missing, or the configuration cannot be used.
    """
    if arguments.config is None:
        raise UserError(f"{arguments.program} needs a configuration: give one such as --config=configs/demo.py")
    return configuration.load(arguments.config, arguments.overrides)


def print_written(output: Path, *names: str) -> None:
    """Prints the paths of a reproduction's files; without matplotlib there are no pictures among them."""
    for name in names:
        if (output / name).exists():
            print(output / name)
