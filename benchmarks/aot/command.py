"""Arguments of `python -m benchmarks aot`, and the work of the command."""

import argparse
import itertools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from benchmarks.aot import summary, targets
from benchmarks.aot.step import OutOfMemoryError, Plan, compile_step
from benchmarks.aot.summary import Planned
from benchmarks.report import Table, body
from benchmarks.settings import parse_batch_sizes, split_names
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.commands.shared.output import results_folder
from ppvit_jax.commands.shared.step_arguments import add_division, add_remat, add_sizes
from ppvit_jax.config import OPTIMIZERS, PRECISIONS, SHARDINGS
from ppvit_jax.config.tuning import METHODS
from ppvit_jax.errors import UserError, print_warning
from ppvit_jax.files import write_json, write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments and description."""
    describe(
        parser,
        "Compiles the training step for a GPU or TPU that this machine does not have, and tells what the program needs "
        "there: kernels, memory traffic, memory, collectives, and an estimate of the time. Nothing runs. It needs the "
        "extra aot. Compiling ViT-B/16 takes about a minute and 3 GB.",
        "python -m benchmarks aot --target h200 --batch-size 32,256",
        "python -m benchmarks aot --target v5e-4 --sharding data_parallel,fully_sharded",
    )
    parser.add_argument(
        "--target",
        default="h200",
        metavar="NAMES",
        help=f"chips, separated by commas: {', '.join(targets.CHIPS)}, with their number as in h200-4 or v5e-4 "
        "(default: %(default)s)",
    )
    parser.add_argument("--model", default="ViT-B/16", metavar="NAME", help="model (default: %(default)s)")
    parser.add_argument(
        "--batch-size",
        default="32",
        metavar="NUMBERS",
        help="numbers of images on each chip, separated by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        default="bfloat16",
        help="precision of the computation (default: %(default)s)",
    )
    parser.add_argument(
        "--matmul-precision",
        choices=PRECISIONS,
        default="highest",
        help="precision of float32 products, as config.matmul_precision (default: %(default)s)",
    )
    add_sizes(parser, classes=10)
    add_division(parser, sharding=SHARDINGS[0])
    parser.add_argument(
        "--encryption",
        default="none",
        metavar="METHOD",
        help="encryption inside the step, such as bs+ps, as config.encryption (default: %(default)s)",
    )
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd", help="optimizer (default: %(default)s)")
    parser.add_argument(
        "--tuning",
        default=METHODS[0],
        metavar="NAMES",
        help=f"methods of tuning, as config.tuning.method, separated by commas: {', '.join(METHODS)} "
        "(default: %(default)s)",
    )
    add_remat(parser)
    parser.add_argument(
        "--attention",
        default="",
        metavar="NAME",
        help="implementation of attention, as config.model_options.attention (default: that of the model)",
    )
    parser.add_argument(
        "--output",
        default="",
        metavar="DIR",
        help="folder to write aot.json, aot.md and the text of each program to (default: print the tables alone)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Compiles each plan, and prints and writes the tables.

    Raises:
      UserError: the arguments cannot be used, or a compiler is missing.
    """
    plans = make_plans(arguments)
    for plan in plans:
        if reason := targets.missing(plan.machine):
            raise UserError(reason)
    targets.prepare_process()
    output = results_folder(arguments.output) if arguments.output else None
    planned = []
    for number, plan in enumerate(plans, start=1):
        place = f"{plan.machine.name}, {plan.batch_size} images a chip, {plan.sharding}, {plan.tuning}"
        print(f"compiling {number} of {len(plans)}: {place}", file=sys.stderr, flush=True)
        planned.append(_compile(plan))
        if output is not None:
            _write(output, planned)
    print("\n".join(body(summary.tables(planned))), flush=True)


def make_plans(arguments: argparse.Namespace) -> list[Plan]:
    """Returns a plan for each target, batch size and sharding of the command's arguments.

    Raises:
      UserError: an argument is unknown, or no number.
    """
    machines = [targets.parse(name) for name in split_names(arguments.target)]
    shardings = split_names(arguments.sharding)
    if unknown := sorted(set(shardings) - set(SHARDINGS)):
        raise UserError(f"--sharding is {', '.join(unknown)}: use {' or '.join(SHARDINGS)}")
    methods = split_names(arguments.tuning)
    if unknown := sorted(set(methods) - set(METHODS)):
        raise UserError(f"--tuning is {', '.join(unknown)}: use {', '.join(METHODS)}")
    batch_sizes = parse_batch_sizes(arguments.batch_size)
    plans = [
        Plan(
            machine=machine,
            batch_size=batch_size,
            sharding=sharding,
            reduce_dtype=arguments.reduce_dtype,
            model=arguments.model,
            dtype=arguments.dtype,
            matmul_precision=arguments.matmul_precision,
            image_size=arguments.image_size,
            classes=arguments.classes,
            encryption=arguments.encryption,
            accumulation=arguments.accumulation,
            optimizer=arguments.optimizer,
            remat=arguments.remat,
            attention=arguments.attention,
            tuning=method,
        )
        for machine, batch_size, sharding, method in itertools.product(machines, batch_sizes, shardings, methods)
    ]
    if not plans:
        raise UserError("there is nothing to compile: give --target, --batch-size and --sharding a value each")
    return plans


def _compile(plan: Plan) -> Planned:
    try:
        planned = summary.read(plan, compile_step(plan))
    except OutOfMemoryError as error:
        print_warning(str(error))
        return Planned(plan, error.needed)
    if 0 in planned.loops:
        print_warning(
            f"the program for {plan.machine.name} has a loop, and nothing tells how often it runs: it is counted once"
        )
    return planned


def _write(output: Path, planned: Sequence[Planned]) -> None:
    tables: list[Table] = summary.tables(planned)
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    rows = {"steps": tables[0].rows} | {table.title.lower(): table.rows for table in tables[1:]}
    write_json(output / "aot.json", {"command": command, "jax": jax.__version__, "ran": False, **rows})
    write_text(output / "aot.md", "\n".join(["# Planned training steps", "", f"`{command}`", "", *body(tables)]))
    last = planned[-1]
    if last.compiled is not None:
        plan = last.plan
        method = f"-{plan.tuning}" if plan.tuning != METHODS[0] else ""
        write_text(
            output / f"{plan.machine.name}-{plan.batch_size}-{plan.sharding}{method}.hlo.txt", last.compiled.text
        )
