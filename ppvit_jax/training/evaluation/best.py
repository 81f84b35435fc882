"""The best weights of a run by a measure of its validation images, and its early end.

metrics.jsonl tells which epoch is the best so far. Its weights are in a file of the workdir, which is written before
the line of the epoch. A run that is stopped and resumed from an earlier state therefore finds the weights of the epoch
that is the best up to that state.
"""

import io
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ppvit_jax.config import Config
from ppvit_jax.config.evaluation import is_better
from ppvit_jax.errors import UserError
from ppvit_jax.files import write_bytes
from ppvit_jax.training.averaging import Weights
from ppvit_jax.training.devices import gather_to_host
from ppvit_jax.training.results import MetricsLine

_FOLDER = "best"


class BestWeights:
    """Weights of the best epoch of a run with `config.best_by`."""

    def __init__(self, workdir: Path, config: Config):
        self._folder = workdir / _FOLDER
        self._best_by, self._patience, self._task = config.best_by, config.patience, config.task

    def find(self, epochs: Sequence[MetricsLine]) -> MetricsLine:
        """Returns the line of the best epoch, the first one among equals.

        Args:
          epochs: the epoch lines of metrics.jsonl, at least one.
        """
        best = epochs[0]
        for line in epochs[1:]:
            if is_better(self._best_by, self._task, self._value(line), self._value(best)):
                best = line
        return best

    def improves(self, value: float, epochs: Sequence[MetricsLine]) -> bool:
        """Returns True if a value of the measure is better than that of each epoch."""
        return not epochs or is_better(self._best_by, self._task, value, self._value(self.find(epochs)))

    def is_over(self, epochs: Sequence[MetricsLine]) -> bool:
        """Returns True if the run ends, because the last `config.patience` epochs are no better than one before."""
        if not self._patience or not epochs:
            return False
        best = self.find(epochs)["step"]
        return sum(line["step"] > best for line in epochs) >= self._patience

    def save(self, step: int, weights: Weights) -> None:
        """Writes the weights after a step; every process of the run calls it, and process 0 writes."""
        flat: dict[str, Any] = flatten_dict(gather_to_host(weights), sep="/")
        if jax.process_index():
            return
        self._folder.mkdir(exist_ok=True)
        content = io.BytesIO()
        np.savez(content, **flat)
        write_bytes(self._file(step), content.getvalue())

    def prune(self, epochs: Sequence[MetricsLine], saved_step: int) -> None:
        """Removes weights that no resumed run can need.

        Args:
          epochs: the epoch lines of metrics.jsonl.
          saved_step: step of the latest state that is complete on the disk, from which a run would resume.
        """
        before = [line for line in epochs if line["step"] <= saved_step]
        if not before or jax.process_index():
            return
        needed = self.find(before)["step"]
        for file in self._folder.glob("*.npz"):
            if file.stem.isdecimal() and int(file.stem) < needed:
                file.unlink(missing_ok=True)

    def load(self, step: int, like: Weights) -> Weights:
        """Returns the weights after a step, with the sharding of others.

        Raises:
          UserError: the file is missing or damaged.
        """
        file = self._file(step)
        try:
            with np.load(file) as arrays:
                flat = {name: arrays[name] for name in arrays.files}
            whole: Any = {"params": {}, "statistics": {}} | unflatten_dict(flat, sep="/")
            return jax.tree.map(lambda array, other: jax.device_put(array, other.sharding), whole, like)
        # A damaged archive raises many types.
        except Exception as error:
            reason = " ".join(str(error).split())[:100]
            raise UserError(f"cannot read the best weights {file} ({reason}): use another workdir") from None

    def remove(self) -> None:
        """Removes the files, once the weights are handed over."""
        if jax.process_index() == 0:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, step: int) -> Path:
        return self._folder / f"{step}.npz"

    def _value(self, line: MetricsLine) -> float:
        value = {**line}.get(self._best_by)
        return value if isinstance(value, int | float) else math.nan
