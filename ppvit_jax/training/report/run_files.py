"""Content of the files of a complete run, as far as its report shows it."""

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from ppvit_jax.errors import UserError
from ppvit_jax.training import identity
from ppvit_jax.training.results import MetricsLine, Result, read_history, read_result


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Predictions by class.

    Attributes:
      class_names: names of the classes, in order.
      counts: int [classes, classes]: number of images of the class of the row that are predicted as that of the column.
    """

    class_names: tuple[str, ...]
    counts: np.ndarray


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """Files of a complete run.

    Attributes:
      folder: the workdir.
      record: config.json; see `ppvit_jax.training.identity.describe_run`.
      history: the lines of metrics.jsonl.
      result: result.json.
      evaluation: evaluation.json, empty if the run has none.
      confusion: confusion.csv, None if the run has none.
    """

    folder: Path
    record: identity.Record
    history: list[MetricsLine]
    result: Result
    evaluation: dict[str, Any]
    confusion: Confusion | None


def read(workdir: Path) -> RunFiles:
    """Reads the files of a run.

    Raises:
      UserError: the folder holds no complete run, or a file is damaged.
    """
    if not (workdir / "config.json").exists():
        raise UserError(f"{workdir} has no config.json: give the workdir of a run")
    result = read_result(workdir)
    if result is None:
        raise UserError(f"the run in {workdir} is not complete: run its command again to finish it, then ask again")
    record = _read_json(workdir / "config.json")
    if not identity.is_record(record):
        raise UserError(f"{workdir / 'config.json'} is damaged: get it again")
    evaluation = _read_json(workdir / "evaluation.json") if (workdir / "evaluation.json").exists() else {}
    if not isinstance(evaluation, dict):
        raise UserError(f"{workdir / 'evaluation.json'} is damaged: remove it, then run ppvit evaluate again")
    history = read_history(workdir)
    return RunFiles(workdir, record, history, result, evaluation, _read_confusion(workdir / "confusion.csv"))


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{file} is damaged: get it again") from None


def _read_confusion(file: Path) -> Confusion | None:
    """Reads a CSV whose first row and column have the names of the predicted and of the true classes."""
    if not file.exists():
        return None
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            (_, *names), *rows = csv.reader(lines)
        counts = np.array([[int(cell) for cell in row[1:]] for row in rows])
        if counts.shape != (len(names), len(names)) or not names or counts.min() < 0:
            raise ValueError("the matrix is not square")
    except ValueError:
        raise UserError(f"{file} is no confusion matrix: remove it, then ask again") from None
    return Confusion(tuple(names), counts)
