"""Writers of a run's progress: TensorBoard, Weights & Biases and MLflow, behind one interface."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ppvit_jax.config import Config
from ppvit_jax.errors import UserError, print_warning
from ppvit_jax.files import write_json
from ppvit_jax.training.public_settings import public_settings
from ppvit_jax.training.writers.mlflow import MLflow
from ppvit_jax.training.writers.tensorboard import TensorBoard
from ppvit_jax.training.writers.wandb import WeightsAndBiases
from ppvit_jax.training.writers.writer import RunInfo, Writer

# Every writer, by its name in config.loggers.
WRITERS: dict[str, type[Writer]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}
# The file in the workdir with the IDs of the run.
_IDS = "loggers.json"
# Files of the workdir that writers may send: none names the key, and none is the model.
_SENT = ("report.html", "evaluation.json", "confusion.csv", "confusion.png")


def named(config: Config) -> list[str]:
    """Returns the names of the writers of a run.

    Raises:
      UserError: config.loggers has an unknown name, or a writer's library is missing.
    """
    names = ["tensorboard"] * config.tensorboard + list(config.loggers)
    for name in names:
        if name not in WRITERS:
            raise UserError(f"config.loggers has {name!r}: use one of {', '.join(map(repr, WRITERS))}")
        WRITERS[name].require()
    return list(dict.fromkeys(names))


class Writers:
    """All writers of a run; one that fails is left out from then on, with a warning."""

    def __init__(self, names: Iterable[str] = ()):
        """Creates the writers of these names; none is started."""
        self._writers = {name: WRITERS[name]() for name in names}
        self._folder = Path()

    def start(self, folder: Path, config: dict[str, Any]) -> None:
        """Starts all writers.

        Args:
          folder: the workdir, which keeps the IDs that the writers give to the run.
          config: the field "config" of its config.json.
        """
        self._folder, settings = folder, public_settings(config)
        recorded = ids = _read_ids(folder / _IDS)
        for name, writer in list(self._writers.items()):
            run = RunInfo(folder, settings, ids.get(name, ""))
            if new := self._try(name, lambda writer=writer, run=run: writer.start(run)):
                ids = ids | {name: new}
        if ids != recorded:
            write_json(folder / _IDS, ids)

    def scalars(self, kind: str, step: int, values: Mapping[str, float | None]) -> None:
        """Writes the values of a line of metrics.jsonl; `kind` is "step" or "epoch"."""
        numbers = {f"{kind}/{name}": value for name, value in values.items() if name != "epoch" and value is not None}
        for name, writer in list(self._writers.items()):
            self._try(name, lambda writer=writer: writer.scalars(step, numbers))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Ends the run with its result, and with the files of the workdir that may be sent."""
        numbers = {name: float(value) for name, value in result.items() if _is_number(value)}
        files = [file for name in _SENT if (file := self._folder / name).exists()]
        for name, writer in list(self._writers.items()):
            self._try(name, lambda writer=writer: writer.finish(numbers, files))
        self._writers.clear()

    def close(self) -> None:
        """Ends the writers of a run that is not complete."""
        for name, writer in list(self._writers.items()):
            self._try(name, writer.close)
        self._writers.clear()

    def _try(self, name: str, action: Callable[[], Any]) -> Any:
        """Returns the result of an action of a writer; None if it failed."""
        try:
            return action()
        # The libraries document no common exception: network, quota, account, disk.
        except Exception as error:
            title = self._writers.pop(name).title
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            print_warning(f"{title} failed ({reason}): the run continues without it, and metrics.jsonl has all values")
            return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read_ids(file: Path) -> dict[str, str]:
    """Returns the recorded IDs by the writers' names; none if the file is missing or damaged."""
    try:
        ids = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: text for name, text in ids.items() if isinstance(text, str)} if isinstance(ids, dict) else {}
