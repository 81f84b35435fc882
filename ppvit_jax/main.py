"""Fine-tuning, the same program as `ppvit train`.

Command:  python -m ppvit_jax.main --config=configs/cifar10.py --workdir=DIR [--config.FIELD=VALUE ...]
"""

import argparse
import sys

from ppvit_jax.command_line import run_program
from ppvit_jax.commands import train


def main(arguments: list[str]) -> None:
    """Parses the arguments, runs the experiment and prints its result.

    Raises:
      UserError: a mistake that the user can correct.
    """
    parser = argparse.ArgumentParser(prog="python -m ppvit_jax.main")
    train.add_arguments(parser)
    parsed, parsed.overrides = parser.parse_known_args(arguments)
    train.run(parsed)


if __name__ == "__main__":
    sys.exit(run_program(main))
