"""The program of these benchmarks: python -m benchmarks COMMAND ... (see --help)."""

import argparse
import importlib
import sys

from ppvit_jax.command_line import run_program
from ppvit_jax.errors import UserError

# Each command is a module of this package, with `add_arguments(parser)` and `run(arguments)`. Only the module of the
# command that runs is imported: some choose the devices of JAX before it is loaded.
COMMANDS = {
    "aot": "Plan a training step for GPUs or TPUs that this machine does not have",
    "quick": "Measure the speed and the promises of the program on a GPU, in five minutes",
}


def main(arguments: list[str]) -> None:
    """Parses the arguments and runs the command.

    Raises:
      UserError: a mistake that the user can correct.
      SystemExit: after --help, or with status 2 if no command is named or its arguments are wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        usage="python -m benchmarks COMMAND ...",
        description="Benchmarks of ppvit_jax on GPUs and TPUs. They run from the source tree.",
        epilog="See also: python -m benchmarks COMMAND --help. The benchmark of every device is ppvit benchmark.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(
        title="commands", dest="command", required=True, metavar="COMMAND", prog="python -m benchmarks"
    )
    named = next((text for text in arguments if not text.startswith("-")), None)
    module = importlib.import_module(f"benchmarks.{named}") if named in COMMANDS else None
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        if module is not None and name == named:
            module.add_arguments(command)
    if not arguments:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise UserError(f"unknown arguments {' '.join(unknown)}: see python -m benchmarks {parsed.command} --help")
    assert module is not None
    module.run(parsed)


if __name__ == "__main__":
    sys.exit(run_program(main))
