"""TensorBoard: event files in the workdir."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ppvit_jax.training.writers.writer import RunInfo

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


class TensorBoard:
    """Writes `events.out.tfevents...` into the workdir; `tensorboard --logdir=WORKDIR` shows them."""

    title = "TensorBoard"
    _events: "SummaryWriter"

    @staticmethod
    def require() -> None:
        """Needs no library that the package does not install."""

    def start(self, run: RunInfo) -> str:
        """Opens a new event file."""
        # tensorboardX imports PyTorch wherever it is installed, which takes a second that only a run should take.
        from tensorboardX import SummaryWriter

        self._events = SummaryWriter(str(run.folder))
        return ""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes an event for each value."""
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def finish(self, result: Mapping[str, float], files: Sequence[Path]) -> None:
        """Closes the event file; the result and the files are in the same folder."""
        self._events.close()

    def close(self) -> None:
        """Closes the event file."""
        self._events.close()
