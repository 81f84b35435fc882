"""One experiment with several seeds, and the mean and deviation of its accuracies."""

import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

from ppvit_jax.config import Config
from ppvit_jax.errors import SEED, UserError
from ppvit_jax.files import local_path, write_json
from ppvit_jax.training.results import Result


class Spread(TypedDict):
    """Mean of several numbers and their sample standard deviation, sqrt(sum((x - mean)^2) / (n - 1)).

    The deviation of a single number is None.
    """

    mean: float
    standard_deviation: float | None


class SeedResult(TypedDict):
    """Result of one seed; see `ppvit_jax.training.results.Result`."""

    seed: int
    workdir: str
    test_accuracy: float
    test_loss: float


class Summary(TypedDict):
    """Content of seeds.json; accuracies are from 0 to 1."""

    test_accuracy: Spread
    test_loss: Spread
    runs: list[SeedResult]


def parse_seeds(text: str) -> list[int]:
    """Reads a list of seeds such as "0,1,2".

    Raises:
      UserError: an entry is no whole number, outside the range of seeds, or a repetition.
    """
    seeds: list[int] = []
    for entry in map(str.strip, text.split(",")):
        if not re.fullmatch("[+-]?[0-9]+", entry):
            raise UserError(f"--seeds is {text!r}: give whole numbers with commas between them, such as 0,1,2")
        seed = int(entry)
        SEED.check("--seeds", seed)
        if seed in seeds:
            raise UserError(f"--seeds is {text!r}, which has {seed} twice: give each seed once")
        seeds.append(seed)
    return seeds


def run_seeds(
    config: Config, workdir: str | Path, seeds: Sequence[int], run: Callable[[Config, Path], Result], *, writes: bool
) -> Summary:
    """Runs an experiment with each seed, in a folder of its own; complete runs are read, others begin or resume.

    Args:
      config: the configuration; `config.seed` is replaced.
      workdir: the folder of seed0, seed1 and so on, and of seeds.json, which has the result.
      seeds: the seeds.
      run: (configuration, folder) -> result, such as `ppvit_jax.training.experiment.run`.
      writes: True in the process that writes seeds.json.

    Returns:
      The content of seeds.json.
    """
    workdir, runs = local_path(workdir), []
    for seed in seeds:
        chosen = config.copy_and_resolve_references()
        chosen.seed = seed
        folder = workdir / f"seed{seed}"
        if writes:
            print(f"seed {seed}: {folder}", file=sys.stderr)
        result = run(chosen, folder)
        runs.append(
            SeedResult(
                seed=seed,
                workdir=folder.name,
                test_accuracy=result["test_accuracy"],
                test_loss=result["test_loss"],
            )
        )
    accuracies, losses = ([row[name] for row in runs] for name in ("test_accuracy", "test_loss"))
    summary = Summary(test_accuracy=_spread(accuracies), test_loss=_spread(losses), runs=runs)
    if writes:
        write_json(workdir / "seeds.json", summary)
    return summary


def format_table(summary: Summary) -> str:
    """Returns one line for each seed, and a last one with mean and deviation."""
    lines = [("seed", "test accuracy", "test loss")]
    lines += [(str(row["seed"]), f"{row['test_accuracy']:.2%}", f"{row['test_loss']:.4f}") for row in summary["runs"]]
    accuracy, loss = summary["test_accuracy"], summary["test_loss"]
    lines.append(("mean", f"{accuracy['mean']:.2%}", f"{loss['mean']:.4f}"))
    if accuracy["standard_deviation"] is not None and loss["standard_deviation"] is not None:
        lines.append(("deviation", f"{accuracy['standard_deviation']:.2%}", f"{loss['standard_deviation']:.4f}"))
    return "\n".join(f"{first:<10} {second:>13} {third:>10}" for first, second, third in lines)


def _spread(values: list[float]) -> Spread:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(mean=statistics.mean(values), standard_deviation=deviation)
