"""The command `ppvit benchmark`: runs the benchmarks of the source tree, which no wheel contains."""

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType

import ppvit_jax
from ppvit_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments: see `benchmarks/command.py`."""
    _benchmarks().add_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Measures, and writes and prints the tables.

    Raises:
      UserError: the arguments or files cannot be used.
    """
    _benchmarks().run(arguments)


def _benchmarks() -> ModuleType:
    source_tree = Path(ppvit_jax.__file__).parents[1]
    if not (source_tree / "benchmarks" / "command.py").is_file():
        raise UserError(
            "the benchmarks are not part of the installed package: clone the project's repository, run pip install "
            "--editable . there, and repeat the command"
        )
    # The console script does not look into the source tree by itself.
    if str(source_tree) not in sys.path:
        sys.path.insert(0, str(source_tree))
    return importlib.import_module("benchmarks.command")
