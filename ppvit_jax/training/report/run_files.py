"""Content of the files of a complete run, as far as its report shows it."""

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import numpy as np

from ppvit_jax.errors import UserError
from ppvit_jax.training import identity
from ppvit_jax.training.evaluation.files import Evaluation, read_evaluation
from ppvit_jax.training.results import MetricsLine, Result, read_history, read_result

# Fields that a result.json of an earlier version may lack.
_UNKNOWN = {
    "model": "a model",
    "checkpoint": "",
    "encryption": "none",
    "seed": "not recorded",
    "train_loss": None,
    "images_per_second": None,
    "key_fingerprint": None,
    "device": "not recorded",
    "versions": {},
}


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """Files of a complete run.

    Attributes:
      folder: the workdir.
      record: config.json; see `ppvit_jax.training.identity.describe_run`.
      history: the lines of metrics.jsonl.
      result: result.json.
      evaluation: evaluation.json; None if the run has none.
      confusion: confusion.csv: int [classes, classes], the number of images of the class of the row that are predicted
        as that of the column; None if the evaluation has no matrix.
    """

    folder: Path
    record: identity.Record
    history: list[MetricsLine]
    result: Result
    evaluation: Evaluation | None
    confusion: np.ndarray | None


def read(workdir: Path) -> RunFiles:
    """Reads the files of a run.

    Raises:
      UserError: the folder holds no complete run, or a file is damaged.
    """
    workdir = workdir.absolute()
    if not (workdir / "config.json").exists():
        raise UserError(f"{workdir} has no config.json: give the workdir of a run")
    result = read_result(workdir)
    if result is None:
        raise UserError(f"the run in {workdir} is not complete: run its command again to finish it first")
    try:
        record: Any = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    except ValueError:
        record = None
    if not identity.is_record(record):
        raise UserError(f"{workdir / 'config.json'} is damaged: get it again")
    evaluation, confusion = read_evaluation(workdir) or (None, None)
    completed = cast(Result, {**_UNKNOWN, **result})
    return RunFiles(workdir, record, read_history(workdir), completed, evaluation, confusion)
