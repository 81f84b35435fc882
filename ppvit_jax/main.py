"""Fine-tuning: python -m ppvit_jax.main --config=configs/cifar10.py --workdir=DIR [--config.FIELD=VALUE ...]"""

import argparse
import json
import sys

import jax

from ppvit_jax import config as configuration
from ppvit_jax.commands.shared.command_line import run_program
from ppvit_jax.errors import UserError
from ppvit_jax.training.experiment import run


def main(arguments: list[str]) -> None:
    """Parses the arguments, runs the experiment and prints its result.

    Raises:
      UserError: anything that the user can put right.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ppvit_jax.main",
        description="Fine-tune a Vision Transformer on plain or encrypted images.",
        allow_abbrev=False,
        epilog="Any field of the configuration can be set: --config.epochs=3 --config.data.dir=DIR",
    )
    parser.add_argument("--config", required=True, help="configuration file, such as configs/cifar10.py")
    parser.add_argument("--workdir", required=True, help="folder for results; the same one continues a run")
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="train together with the other processes of a TPU pod, or of a Slurm, Open MPI or Kubernetes job",
    )
    parser.add_argument("--coordinator-address", help="HOST:PORT of process 0, where --distributed cannot find it")
    parser.add_argument("--num-processes", type=int, help="processes that train together")
    parser.add_argument("--process-id", type=int, help="this process, from 0")
    parser.add_argument(
        "--allow-mismatch", action="store_true", help="accept images of another key or encryption than the model's"
    )
    known, overrides = parser.parse_known_args(arguments)
    if known.distributed or known.coordinator_address:
        try:
            jax.distributed.initialize(known.coordinator_address, known.num_processes, known.process_id)
        # JAX documents no type: a cluster that it cannot find, an address that nobody answers, a number that is taken.
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"cannot join the other processes ({' '.join(str(error).split())}): start this in a TPU pod or a "
                "Slurm, Open MPI or Kubernetes job, or give --coordinator-address, --num-processes and --process-id"
            ) from None
    if known.allow_mismatch:
        overrides.append("--config.allow_mismatch=True")
    config = configuration.load(known.config, overrides)
    result = run(config, known.workdir)
    if jax.process_index() == 0:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    sys.exit(run_program(main))
