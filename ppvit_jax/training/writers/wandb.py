"""Weights & Biases: a run of wandb, online, or offline with WANDB_MODE=offline."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ppvit_jax.errors import require
from ppvit_jax.training.writers.writer import RunInfo

if TYPE_CHECKING:
    from wandb import Run


class WeightsAndBiases:
    """Writes a run of wandb, whose own environment variables choose the project, the account and the mode.

    The run's files lie in `wandb/` in the workdir.
    """

    title = "Weights & Biases"
    _run: "Run"

    @staticmethod
    def require() -> None:
        """Checks that wandb is installed."""
        require("the logger wandb", "wandb", "wandb")

    def start(self, run: RunInfo) -> str:
        """Begins or continues a run of wandb. Nothing but the settings is sent of program and machine."""
        import wandb

        settings = wandb.Settings(
            # The command line names the key file, and the source tree and the console are not the run's to send.
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            disable_git=True,
            save_code=False,
            console="off",
            host="",
        )
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "ppvit_jax"),
            name=os.environ.get("WANDB_NAME", run.name),
            dir=run.folder,
            id=run.recorded_id or None,
            resume="allow",
            # A program that calls this one keeps its own run.
            reinit="create_new",
            config=dict(run.settings),
            # Settings such as log_steps may change when a run is resumed.
            allow_val_change=True,
            settings=settings,
        )
        return self._run.id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values; wandb drops those of a step that is not after the last one."""
        self._run.log(dict(values), step=step)

    def finish(self, result: Mapping[str, float], files: Sequence[Path]) -> None:
        """Writes the result into the run's summary, and sends the files."""
        self._run.summary.update({f"result/{name}": value for name, value in result.items()})
        for file in files:
            self._run.save(file, base_path=file.parent, policy="now")
        self._run.finish()

    def close(self) -> None:
        """Marks the run as failed; a process that continues it marks it as running again."""
        self._run.finish(exit_code=1)
