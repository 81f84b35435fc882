"""Runs commands on damaged files, and judges them."""

import contextlib
import dataclasses
import io
import itertools
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from unittest import mock

from helpers.command import ROOT

from fuzz import seeds
from fuzz.seeds import Seed
from ppvit_jax import __main__ as commands
from ppvit_jax import config as configuration
from ppvit_jax import data
from ppvit_jax.command_line import run_program

SECONDS, MEMORY = 20, 2e9
# Time of the processor, which other programs do not change, and time on the clock, for a command that waits for ever.
_TIMERS = (
    (signal.ITIMER_PROF, signal.SIGPROF, SECONDS),
    (signal.ITIMER_REAL, signal.SIGALRM, 10 * SECONDS),
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """A command that did what no damaged file should make it do."""

    number: int
    seed: str
    file: str
    command: str
    fault: str
    output: str

    def __str__(self) -> str:
        return f"{self.number}: {self.seed} {self.file}: {self.fault}\n  {self.command}\n  {self.output}"


class _TooLong(BaseException):
    """The command takes longer than it may."""


def fuzz(numbers: range, seed: int, folder: Path, made: list[Seed] | None = None) -> Iterator[Finding | None]:
    """Damages a file and runs a command on it, once for each number; the numbers and the seed decide everything.

    Args:
      numbers: numbers of the cases.
      seed: seed of all cases.
      folder: a folder for the files.
      made: the result of `seeds.make`, if it is there already.

    Yields:
      A finding, or None for a case without one.
    """
    folder.mkdir(exist_ok=True)
    made = made or seeds.make(folder / "seeds", fast=False)
    for number in numbers:
        draw = random.Random(f"{seed}/{number}")
        chosen = made[number % len(made)]
        case = folder / "case"
        shutil.rmtree(case, ignore_errors=True)
        for name in ("in", "out", "here"):
            (case / name).mkdir(parents=True)
        path = seeds.copied(chosen, case / "in")
        file = draw.choice(chosen.files)
        mode = (path / file).stat().st_mode
        (path / file).write_bytes(chosen.damage((path / file).read_bytes(), draw))
        (path / file).chmod(mode)
        # A damaged file of its own is named as the command that reads it expects.
        command = draw.choice(chosen.commands)
        arguments = [text.replace("IN", str(path)).replace("OUT", str(case / "out" / "new")) for text in command]
        writes_input = ("--output", "IN") in itertools.pairwise(command)
        fault, output = _judge(arguments, case, writes_input=writes_input)
        yield None if fault is None else Finding(number, chosen.name, file, " ".join(arguments), fault, output)
    shutil.rmtree(folder / "case", ignore_errors=True)


def _judge(arguments: list[str], case: Path, *, writes_input: bool) -> tuple[str | None, str]:
    """Runs a command; returns its fault, if it has one, and its output."""
    before = _snapshot(case / "in")
    shown, errors = io.StringIO(), io.StringIO()
    began, kept = time.process_time(), Path.cwd()
    _forget_peak()
    for timer, sign, limit in _TIMERS:
        signal.signal(sign, _stop)
        signal.setitimer(timer, limit)
    # The hooks of the case before, which are for late errors of its threads.
    sys.excepthook, sys.unraisablehook = sys.__excepthook__, sys.__unraisablehook__
    try:
        os.chdir(case / "here")
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(errors), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of damage that it can repair.
            with mock.patch.object(sys, "argv", ["ppvit", *arguments]):
                status = run_program(_load if arguments[0] == "load" else commands.main)
    except _TooLong:
        return f"over {SECONDS} s", errors.getvalue()
    except BaseException:
        return "traceback", traceback.format_exc(limit=-3)
    finally:
        for timer, _, _ in _TIMERS:
            signal.setitimer(timer, 0)
        os.chdir(kept)
    text = errors.getvalue()
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    if status not in (0, 1) or len(lines) != status:
        return f"status {status} with {len(lines)} lines of errors", text
    if "Traceback" in text:
        return "traceback in the output", text
    if (seconds := time.process_time() - began) > SECONDS:
        return f"{seconds:.0f} s", text
    if (peak := _peak()) > MEMORY:
        return f"{peak / 1e9:.1f} GB", text
    if list((case / "here").iterdir()) or {path.name for path in case.iterdir()} != {"in", "out", "here"}:
        return "files outside the output", text
    if not writes_input and _snapshot(case / "in") != before:
        return "changed its input", text
    if any(path.name.endswith(".tmp") for path in (case / "out").rglob("*")):
        return "left a temporary file", text
    return None, text


def _load(arguments: list[str]) -> None:
    """Loads the images of a training run."""
    demo = str(ROOT / "configs" / "cifar10.py")
    config = configuration.load(demo, [*arguments[1:], "--config.image_size=16", "--config.model=ViT-Ti/4"])
    dataset = data.load(config.data, config.image_size, config.seed)
    for source in (dataset.train, dataset.test):
        source.fetch(0)


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    status = {str(path): path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (found.st_size, found.st_mtime_ns) for path, found in status.items()}


def _stop(number: int, frame: FrameType | None) -> None:
    raise _TooLong


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """Returns the largest memory of this process since `_forget_peak`, or since its start."""
    with contextlib.suppress(OSError, IndexError):
        text = Path("/proc/self/status").read_text()
        return 1024 * float(text.partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
