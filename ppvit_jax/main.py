"""Fine-tuning: python -m ppvit_jax.main --config=configs/cifar10.py --workdir=DIR [--config.FIELD=VALUE ...]"""

import argparse
import errno
import json
import sys
from collections.abc import Callable

import jax

from ppvit_jax import config as configuration
from ppvit_jax.errors import UserError
from ppvit_jax.experiment import run

# A full, read-only, failing or foreign disk, at whatever place it shows.
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}


def main(arguments: list[str]) -> None:
    """Parses the arguments, runs the experiment and prints its result.

    Raises:
      UserError: anything that the user can put right.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ppvit_jax.main",
        description="Fine-tune a Vision Transformer on plain or encrypted images.",
        epilog="Any field of the configuration can be set: --config.epochs=3 --config.data.dir=DIR",
    )
    parser.add_argument("--config", required=True, help="configuration file, such as configs/cifar10.py")
    parser.add_argument("--workdir", required=True, help="folder for results; the same one continues a run")
    parser.add_argument("--coordinator-address", help="HOST:PORT of process 0, or 'auto' on a TPU pod or a cluster")
    parser.add_argument("--num-processes", type=int, help="processes that train together")
    parser.add_argument("--process-id", type=int, help="this process, from 0")
    known, overrides = parser.parse_known_args(arguments)
    if known.coordinator_address:
        try:
            if known.coordinator_address == "auto":
                jax.distributed.initialize()
            else:
                jax.distributed.initialize(known.coordinator_address, known.num_processes, known.process_id)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"cannot join the other processes: {' '.join(str(error).split())}") from None
    config = configuration.load(known.config, overrides)
    result = run(config, known.workdir)
    if jax.process_index() == 0:
        print(json.dumps(result, indent=2))


def run_command(command: Callable[[list[str]], None], arguments: list[str]) -> int:
    """Runs a command; a user's mistake becomes one line on standard error. Returns the exit status."""
    try:
        command(arguments)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        print(f"error: {what}; put it right, then run the same command again to continue", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: run the same command again to continue", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
