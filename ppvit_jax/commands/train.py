"""The command `ppvit train`: fine-tunes a model. `python -m ppvit_jax.main` is the same program."""

import argparse
import json
import re
import sys

from ppvit_jax.command_line import Number
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.errors import COUNT, COUNT_OR_NONE, UserError, resuming


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments; everything else is left to the configuration, as its overrides."""
    parser.allow_abbrev = False
    parser.epilog = (
        "You can set any field of the configuration: --config.epochs=3 --config.data.dir=DIR\n"
        "To augment images that are encrypted already: --config.cloud_augmentation=mixup+token_drop:rate=0.1\n"
        "To start from weights on the Hugging Face hub: --config.checkpoint=hf:OWNER/NAME[@REVISION][:FILE]\n"
        "To read a CSV list, parquet or webdataset: --config.data.source=csv --config.data.dir=images.csv\n"
        "To keep the best weights: --config.data.validation=0.1 --config.best_by=val_accuracy --config.patience=5\n"
        "To train several labels per image: --config.task=multi_label\n"
        "To ask XLA for the same bits in every run on a GPU (not tried on one): --config.deterministic=True\n"
        "To write a page about the run at the end, with time and memory: --config.report=True\n"
        "To send the progress to Weights & Biases and MLflow, too: --config.loggers=\"('wandb','mlflow')\"\n"
        "Recipes (docs/recipes.md): --config.optimizer.layer_decay=0.75 --config.ema_decay=0.99 --config.drop_path=0.1 "
        "--config.class_weights=balanced --config.data.sampling=balanced; to save memory: --config.remat=blocks\n"
        "For less precise float32 products on a GPU or TPU, to save time: --config.matmul_precision=default"
    )
    describe(
        parser,
        "Fine-tunes a model on plain or encrypted images. The cloud runs it with configs/cloud.py, and needs no key. "
        "With other configurations it encrypts plain images itself, with a key in the folder of results. If it is "
        "interrupted, run the same command again: it resumes.",
        "ppvit train --config=configs/cifar10.py --workdir=runs/cifar10",
        "ppvit train --config=configs/finetune.py:dinov2-small --workdir=runs/dinov2-small",
        "ppvit train --config=configs/cloud.py --workdir=runs/cloud",
        "ppvit train --config=configs/digits.py --workdir=runs/digits --seeds 0,1,2",
    )
    parser.set_defaults(overrides_start_with="")
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="configuration: a file of yours, or one of the package such as configs/cifar10.py",
    )
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="DIR",
        help="folder to write the results to: a new one, or that of an interrupted run, which resumes",
    )
    parser.add_argument(
        "--seeds",
        metavar="LIST",
        help="train once with each of these seeds, such as 0,1,2, in DIR/seed0 and so on, and write mean and sample "
        "standard deviation of the test accuracies to DIR/seeds.json; complete runs are not repeated",
    )
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="train together with the other processes of a TPU pod, or of a Slurm, Open MPI or Kubernetes job",
    )
    parser.add_argument(
        "--coordinator-address", metavar="HOST:PORT", help="address of process 0, where --distributed cannot find it"
    )
    parser.add_argument(
        "--num-processes",
        action=Number,
        range=COUNT,
        metavar="N",
        help="number of processes that train together",
    )
    parser.add_argument(
        "--process-id",
        action=Number,
        range=COUNT_OR_NONE,
        metavar="N",
        help="number of this process, counted from 0",
    )
    parser.add_argument(
        "--allow-mismatch",
        action="store_true",
        help="train on images whose key or encryption is not the model's (default: reject them)",
    )


@resuming()
def run(arguments: argparse.Namespace) -> None:
    """Runs the experiment and prints its result.

    Raises:
      UserError: a mistake that the user can correct.
    """
    # Help and mistakes in the arguments appear without the seconds that these take to import.
    import jax

    from ppvit_jax import config as configuration
    from ppvit_jax.training import experiment, seeds

    listed = None if arguments.seeds is None else seeds.parse_seeds(arguments.seeds)
    if listed is not None and any(re.match(r"--config\.seed(=|$)", text) for text in arguments.overrides):
        raise UserError("--seeds sets config.seed for each run: remove --config.seed, or --seeds")
    _check_processes(arguments)
    if arguments.distributed or arguments.coordinator_address:
        try:
            jax.distributed.initialize(arguments.coordinator_address, arguments.num_processes, arguments.process_id)
        # JAX documents no type: a cluster that it cannot find, an address that nobody answers, a number that is taken.
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"cannot join the other processes ({' '.join(str(error).split())}): start this in a TPU pod or a "
                "Slurm, Open MPI or Kubernetes job, or give --coordinator-address, --num-processes and --process-id"
            ) from None
    overrides = arguments.overrides + ["--config.allow_mismatch=True"] * arguments.allow_mismatch
    config = configuration.load(arguments.config, overrides)
    writes = jax.process_index() == 0
    if listed is None:
        result = experiment.run(config, arguments.workdir)
    else:
        result = seeds.run_seeds(config, arguments.workdir, listed, experiment.run, writes=writes)
        if writes:
            print(seeds.format_table(result), file=sys.stderr)
    if writes:
        print(json.dumps(result, indent=2))


def _check_processes(arguments: argparse.Namespace) -> None:
    """Raises UserError for a process that does not exist, or that would train alone although others are named."""
    count, number, address = arguments.num_processes, arguments.process_id, arguments.coordinator_address
    if address and not re.fullmatch(r".+:\d{1,5}", address):
        raise UserError(f"--coordinator-address is {address}: give HOST:PORT, such as 10.0.0.1:1234")
    if (count, number) != (None, None) and not (arguments.distributed or arguments.coordinator_address):
        raise UserError("--num-processes and --process-id need --coordinator-address or --distributed: add one of them")
    if None not in (count, number) and number >= count:
        raise UserError(f"--process-id is {number}, but --num-processes is {count}: give at most {count - 1}")
