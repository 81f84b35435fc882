"""Interface of a writer, which sends the progress of a run to a program that shows it, such as TensorBoard."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ppvit_jax.training.public_settings import Setting


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """Facts about a run that a writer may send.

    Attributes:
      folder: absolute path of the workdir.
      settings: the configuration by full field names, without private fields.
      recorded_id: the name that this writer gave to the run when it began; "" for a new run.
    """

    folder: Path
    settings: Mapping[str, Setting]
    recorded_id: str = ""

    @property
    def name(self) -> str:
        """Name of the run for people: that of its folder."""
        return self.folder.name


class Writer(Protocol):
    """A writer of one run. Any method may raise an exception: the run then goes on without the writer.

    The class is in a file of its own, and `ppvit_jax.training.writers.WRITERS` lists it.

    Attributes:
      title: its name for messages, such as "Weights & Biases".
    """

    title: str

    @staticmethod
    def require() -> None:
        """Checks that the writer can be imported.

        Raises:
          UserError: a library is missing; the message has the command that installs it.
        """
        ...

    def start(self, run: RunInfo) -> str:
        """Begins a run, or continues the one of `run.recorded_id`; returns the run's ID, or "" if it needs none."""
        ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes values such as {"step/train_loss": 0.5} after a step; a resumed run may repeat a step."""
        ...

    def finish(self, result: Mapping[str, float], files: Sequence[Path]) -> None:
        """Ends a complete run.

        Args:
          result: the numbers of result.json.
          files: files of the workdir that may be sent.
        """
        ...

    def close(self) -> None:
        """Ends this process' part of a run that was interrupted, and that another process may continue."""
        ...
