"""The command `ppvit report`: writes the page about a run."""

import argparse

from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.errors import UserError
from ppvit_jax.files import local_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments and description."""
    describe(
        parser,
        "Writes one page about a complete run: its result, curves, confusion matrix, worst classes, settings and "
        "environment. The page needs no network and no other file, and names no key file.",
        "ppvit report runs/cifar10",
        "ppvit report runs/cifar10 --output=cifar10.html",
    )
    parser.add_argument("workdir", metavar="DIR", help="workdir of a complete run")
    parser.add_argument("--output", metavar="FILE", help="page to write (default: report.html in the workdir)")


def run(arguments: argparse.Namespace) -> None:
    """Writes the page and prints its path.

    Raises:
      UserError: the folder holds no complete run, or the page cannot be written.
    """
    # The help does not wait for JAX.
    from ppvit_jax.training import report

    output = local_path(arguments.output) if arguments.output else None
    if output is not None and not output.parent.is_dir():
        raise UserError(f"there is no folder {output.parent}: create it, or choose another path for --output")
    print(report.write(local_path(arguments.workdir), output))
