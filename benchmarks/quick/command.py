"""The command `python -m benchmarks quick`: measures the speed and the promises of the program in five minutes."""

import argparse
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from benchmarks import report
from benchmarks.quick import promises, speed
from benchmarks.quick.rows import COLUMNS, Part, first_words, unmeasured
from benchmarks.quick.session import Session, Workload, choose_workload
from benchmarks.settings import DEVICES, Settings, describe_machine, select_device
from ppvit_jax import data
from ppvit_jax.command_line import Number
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.commands.shared.output import results_folder
from ppvit_jax.config import default_config
from ppvit_jax.data.tfds_source import find_prepared
from ppvit_jax.errors import COUNT, Range, UserError, is_installed, print_note, print_warning

_TURNS = 30
_IMAGE_SIZE = 224
# Time that the last part may take beyond its estimate.
_RESERVE_SECONDS = 15
_RANDOM = "random"
_NO_TIME = "not measured (time)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments and description."""
    parser.epilog = (
        "It measures ViT-B/16 in bfloat16 on a GPU or TPU, and ViT-Ti/16 in float32 on a processor. PyTorch is "
        "measured where torch and timm are installed. The exit status is 1 if a promise of the documentation is not "
        "kept or a measurement fails, and 0 otherwise; slow results do not change it."
    )
    describe(
        parser,
        "Measures matrix products, training steps in turns with PyTorch's, the cost of encryption, the training loop, "
        "exactness and determinism. It needs no data. Each result is written as soon as it is measured.",
        "python -m benchmarks quick",
        "python -m benchmarks quick --cifar10 random",
    )
    parser.add_argument(
        "--minutes",
        action=Number,
        range=Range(above=0),
        default=5,
        metavar="N",
        help="time for all parts except --cifar10; parts that no longer fit are listed as not measured "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--device", choices=DEVICES, default="", help="kind of device to measure (default: the best that JAX finds)"
    )
    parser.add_argument("--without-pytorch", action="store_true", help="measure JAX alone, which leaves time for more")
    parser.add_argument(
        "--cifar10",
        default="",
        metavar="DIR",
        help="train on CIFAR-10 at the end: the folder of data sets that ppvit prepare has written, or the word random "
        "for as many random images (default: leave this out)",
    )
    parser.add_argument(
        "--epochs", action=Number, range=COUNT, default=15, metavar="N", help="for --cifar10 (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size", action=Number, range=COUNT, default=32, metavar="N", help="for --cifar10 (default: %(default)s)"
    )
    parser.add_argument(
        "--output",
        default="runs/quick",
        metavar="DIR",
        help="folder to write benchmark.json and benchmark.md to (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Measures all parts that fit into the time, and prints the table.

    Raises:
      UserError: the arguments cannot be used, a promise is not kept, or a measurement failed.
    """
    deadline = time.monotonic() + 60 * arguments.minutes
    if arguments.cifar10 not in ("", _RANDOM):
        find_prepared("cifar10", arguments.cifar10)
    device = select_device(arguments.device)
    workload = choose_workload(device)
    compare = not arguments.without_pytorch and _has_pytorch(device)
    output = results_folder(arguments.output)
    settings = Settings((workload.model,), (), (), _IMAGE_SIZE, _TURNS, compare, device, "", "", output)
    session = Session(settings, workload)
    machine = describe_machine()
    if compare:
        from benchmarks import pytorch

        machine |= pytorch.describe()
    parts = list_parts(session)
    last: list[Part] = []
    if arguments.cifar10:
        last = [speed.cifar10(session, _load_cifar10(arguments.cifar10), arguments.epochs, arguments.batch_size)]
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    note = _describe(workload, machine, arguments.minutes)
    if jax.device_count() > 1:
        print_warning(
            f"there are {jax.device_count()} devices: the training loop uses all, and everything else the first; hide "
            "the others, for example with CUDA_VISIBLE_DEVICES=0"
        )
    table = report.Table("Quick benchmark", note, COLUMNS, [])

    def write(rows: list[dict[str, Any]]) -> None:
        table.rows[:] = rows
        report.write(output, command, machine, {"quick": [table]})

    measure(parts, last, deadline, write)
    print("\n".join(table.lines()), flush=True)
    check(table.rows)


def list_parts(session: Session) -> list[Part]:
    """Returns the parts of the benchmark, the most important first."""
    return [
        promises.encryption(session),
        speed.products(session),
        speed.encryption(session),
        *(speed.steps(session, size) for size in session.workload.batch_sizes[:2]),
        promises.exactness(session),
        promises.determinism(session, deterministic=False),
        promises.determinism(session, deterministic=True),
        speed.loop(session),
        *(speed.steps(session, size, encrypted=False) for size in session.workload.batch_sizes[2:]),
        # A processor has one precision alone.
        *([speed.precision(session)] if session.settings.device != "cpu" else []),
    ]


def measure(
    parts: Sequence[Part],
    last: Sequence[Part],
    deadline: float,
    write: Callable[[list[dict[str, Any]]], None],
) -> list[dict[str, Any]]:
    """Measures the parts one after another.

    Args:
      parts: parts that are left out if the rest of the time is too short for them.
      last: parts that are measured in any case.
      deadline: end of the time for `parts`, on the clock `time.monotonic`.
      write: receives all rows so far, after each.

    Returns:
      The rows. Each measure of each part has one.
    """
    rows: list[dict[str, Any]] = []
    for number, part in enumerate([*parts, *last], start=1):
        left = deadline - time.monotonic()
        needed = part.estimate()
        if number <= len(parts):
            progress = f"part {number} of {len(parts) + len(last)}: {part.title}, about {needed:.0f} s"
            print(f"{progress}; {max(left, 0):.0f} s left", file=sys.stderr, flush=True)
            if needed > left - _RESERVE_SECONDS:
                rows += unmeasured(part, 0, _NO_TIME)
                write(rows)
                continue
        else:
            print(f"part {number} of {len(parts) + len(last)}: {part.title}", file=sys.stderr, flush=True)
        rows += _measure_part(part, rows, write)
        write(rows)
    return rows


def _measure_part(
    part: Part, before: list[dict[str, Any]], write: Callable[[list[dict[str, Any]]], None]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    start = time.monotonic()
    try:
        for row in part.run():
            rows.append({**row, "elapsed_seconds": time.monotonic() - start})
            write(before + rows)
    # A compiler or a device may raise any exception, such as for too little memory; the others are still measured.
    except Exception as error:
        reason = first_words(error)
        print_warning(f"{part.title}: {reason}")
        failed = unmeasured(part, len(rows), f"failed: {reason}")
        rows += [{**row, "traceback": traceback.format_exc()} for row in failed]
    return rows


def check(rows: Sequence[Mapping[str, Any]]) -> None:
    """Checks that every promise is kept, and that no measurement failed.

    Raises:
      UserError: one is not, or one did.
    """
    if broken := [row["measure"] for row in rows if row.get("broken")]:
        raise UserError(f"a promise of the documentation is not kept ({'; '.join(broken)}): report this defect")
    if failed := [row["measure"] for row in rows if "traceback" in row]:
        raise UserError(f"these measurements failed: {'; '.join(failed)}; benchmark.json has the reasons")


def _has_pytorch(device: str) -> bool:
    """Returns True if PyTorch and timm are there for the device; prints the reason if they are not."""
    if missing := [name for name in ("torch", "timm") if not is_installed(name)]:
        print_note(f"PyTorch is not measured, because {' and '.join(missing)} cannot be imported")
        return False
    from benchmarks import pytorch

    try:
        pytorch.device(device)
    except UserError as error:
        print_note(f"PyTorch is not measured: {str(error).partition(':')[0]}")
        return False
    return True


def _load_cifar10(folder: str) -> data.Dataset | None:
    """Reads CIFAR-10 from a prepared folder; returns None for random images."""
    if folder == _RANDOM:
        return None
    fields = default_config().data
    fields.dir = folder
    return data.load(fields, _IMAGE_SIZE)


def _describe(workload: Workload, machine: Mapping[str, object], minutes: float) -> str:
    device = machine["device"]
    if device == "cpu":
        device = f"{machine['processor']} ({machine['cores']} cores)"
    return (
        f"{workload.model} in {workload.dtype} on {device}; {_IMAGE_SIZE}x{_IMAGE_SIZE}, SGD with momentum and weight "
        f"decay, random images on the device, at most {_TURNS} turns, within {minutes:g} minutes. The encryption is "
        "block scrambling and pixel shuffling. A value is a median, for matrix products the best turn. The ratio is "
        "the value divided by the one that it is compared with, and the quartiles beside it are those of the ratios "
        "within each turn. The share of the product rate counts the matrix products of three forward passes a step. "
        "GB/s counts each image once. A measure without a limit on this device has no verdict."
    )
