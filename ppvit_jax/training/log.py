"""Training log: metrics.jsonl, and progress on standard error."""

import math
import sys
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ppvit_jax.training.checks import check_finite
from ppvit_jax.training.state import Metrics, State
from ppvit_jax.training.workdir import Workdir


class _PendingStep(NamedTuple):
    """A step whose metrics the devices may still be computing."""

    step: int
    metrics: Metrics
    learning_rate: jax.typing.ArrayLike


class Evaluation(NamedTuple):
    """Evaluation on all test images, or on all validation images.

    loss, accuracy: means over the images.
    examples: number of images.
    predicted_classes: number of classes that are predicted for an image at least.
    part: "test" or "validation".
    others: further measures, by their names in metrics.jsonl.
    """

    loss: float
    accuracy: float
    examples: int
    predicted_classes: int
    part: str = "test"
    others: Mapping[str, float] = MappingProxyType({})


class Log:
    """Training log, which writes the metrics of a step one step late, because reading them at once would stall devices.

    Attributes:
      loss: mean training loss of the current epoch, up to the last step that was logged.
      accuracy: training accuracy of the current epoch, up to the same step.
    """

    def __init__(self, files: Workdir, schedule: optax.Schedule, *, batch_size: int, epochs: int, total_steps: int):
        self.loss = self.accuracy = math.nan
        self._files, self._schedule = files, schedule
        self._batch_size, self._epochs, self._total_steps = batch_size, epochs, total_steps
        self._pending: _PendingStep | None = None
        self._first_step: int | None = None
        self._last_step = 0
        self._seconds = 0.0
        self._resumed_at: float | None = None
        self._printed_at = 0.0

    @property
    def rate(self) -> float | None:
        """Training speed in images per second, without evaluation, saving and the compilation in the first step."""
        seconds = self._seconds + (time.perf_counter() - self._resumed_at if self._resumed_at else 0.0)
        steps = self._last_step - (self._last_step if self._first_step is None else self._first_step)
        return steps * self._batch_size / seconds if steps > 0 and seconds > 0 else None

    def start(self, step: int, state: State) -> None:
        """Starts the clock after the first step of the run, which compiles the programs."""
        if self._first_step is None:
            jax.block_until_ready(state)
            self._first_step, self._last_step, self._resumed_at = step, step, time.perf_counter()

    def step(self, step: int, metrics: Metrics) -> None:
        """Stores the metrics after a step, and logs the metrics that were stored before.

        Args:
          step: number of steps that are done.
          metrics: sums since the start of the epoch; see `ppvit_jax.training.step.Metrics`.

        Raises:
          UserError: the loss is not finite.
        """
        # The next step overwrites the metrics in the state, so keep a copy. Later computations wait for earlier steps.
        # The optimizer counts the updates before a step.
        copies, learning_rate = jax.tree.map(jnp.copy, metrics), self._schedule(step - 1)
        for copy in jax.tree.leaves(copies):
            copy.copy_to_host_async()
        self.flush()
        self._pending = _PendingStep(step, copies, learning_rate)

    def flush(self) -> None:
        """Logs the pending step, if there is one.

        Raises:
          UserError: the loss is not finite.
        """
        if self._pending is None:
            return
        step, metrics, learning_rate = self._pending
        self._pending = None
        self._last_step = step
        self.recall(metrics)
        check_finite("training loss", self.loss, step)
        per_epoch = self._total_steps // self._epochs
        self._files.log(
            "step",
            step,
            epoch=step / per_epoch,
            train_loss=self.loss,
            train_accuracy=self.accuracy,
            learning_rate=float(np.asarray(learning_rate)),
            images_per_second=self.rate,
        )
        self._print(
            f"epoch {-(-step // per_epoch)}/{self._epochs} step {step}/{self._total_steps} loss {self.loss:.4f} "
            f"accuracy {self.accuracy:.2%}"
        )

    def recall(self, metrics: Metrics) -> None:
        """Takes over the metrics of an epoch whose steps an earlier process has logged."""
        loss, correct, count = (float(metrics[name]) for name in ("loss", "correct", "count"))
        self.loss, self.accuracy = loss / count, correct / count

    def epoch(self, step: int, evaluation: Evaluation) -> None:
        """Logs the evaluation at the end of an epoch; the last step of the epoch must be logged already.

        Raises:
          UserError: the loss is not finite.
        """
        part, prefix = evaluation.part, "test" if evaluation.part == "test" else "val"
        check_finite(f"{part} loss", evaluation.loss, step)
        values = {
            f"{prefix}_loss": evaluation.loss,
            f"{prefix}_accuracy": evaluation.accuracy,
            f"{prefix}_examples": evaluation.examples,
            **evaluation.others,
        }
        epoch = step * self._epochs // self._total_steps
        self._files.log(
            "epoch",
            step,
            epoch=epoch,
            train_loss=self.loss,
            train_accuracy=self.accuracy,
            **values,
            predicted_classes=evaluation.predicted_classes,
            images_per_second=self.rate,
        )
        self._print(
            f"epoch {epoch}/{self._epochs} {part} loss {evaluation.loss:.4f} {part} accuracy {evaluation.accuracy:.2%} "
            f"({evaluation.examples} images)",
            now=True,
        )

    def pause(self, state: State) -> None:
        """Logs the pending step, waits until the devices are idle, and stops the clock."""
        self.flush()
        jax.block_until_ready(state)
        if self._resumed_at is not None:
            self._seconds += time.perf_counter() - self._resumed_at
        self._resumed_at = None

    def resume(self) -> None:
        """Starts the clock again."""
        self._resumed_at = time.perf_counter()

    def _print(self, text: str, *, now: bool = False) -> None:
        if jax.process_index() or not (now or time.perf_counter() - self._printed_at >= 2):
            return
        self._printed_at = time.perf_counter()
        remaining = self._total_steps - self._last_step
        if (rate := self.rate) and remaining:
            minutes, seconds = divmod(round(remaining * self._batch_size / rate), 60)
            text += f" | {rate:.1f} images/s, {minutes}:{seconds:02d} left"
        print(text, file=sys.stderr, flush=True)
