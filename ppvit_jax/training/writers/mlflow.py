"""MLflow: a run on the tracking server, or in the local store, that MLFLOW_TRACKING_URI names."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ppvit_jax.errors import print_note, require
from ppvit_jax.training.writers.writer import RunInfo

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Most parameters that MLflow takes at once.
_BATCH = 100


class MLflow:
    """Writes a run of MLflow, whose own environment variables choose the store and the experiment."""

    title = "MLflow"
    _client: "MlflowClient"
    _id: str

    def __init__(self) -> None:
        self._is_resumed = False
        # The last step that an earlier process has written, by the name of the value.
        self._written: dict[str, int] = {}

    @staticmethod
    def require() -> None:
        """Checks that MLflow is installed."""
        require("the logger mlflow", "mlflow", "mlflow")

    def start(self, run: RunInfo) -> str:
        """Begins or continues a run of MLflow. Its tags name neither user, program nor source."""
        # Without this, importing MLflow begins to send statistics about its use.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        self._client = MlflowClient()
        if run.recorded_id and self._continue(run.recorded_id):
            return run.recorded_id
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "ppvit_jax")
        experiment = self._client.get_experiment_by_name(title)
        number = experiment.experiment_id if experiment else self._client.create_experiment(title)
        self._id = self._client.create_run(number, run_name=os.environ.get("MLFLOW_RUN_NAME", run.name)).info.run_id
        self._write_settings(run)
        return self._id

    def _continue(self, run_id: str) -> bool:
        """Opens the run of this ID; returns False if the store lacks it."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            print_note(f"MLflow's store lacks the run {run_id}, which this run began: it continues as a new one there")
            return False
        self._id, self._is_resumed = run_id, True
        return True

    def _write_settings(self, run: RunInfo) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)) for name, value in run.settings.items()]
        for first in range(0, len(params), _BATCH):
            self._client.log_batch(self._id, params=params[first : first + _BATCH])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values, without those that an earlier process has written for the same step."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items() if step > self._last_step(name)]
        if metrics:
            self._client.log_batch(self._id, metrics=metrics)

    def _last_step(self, name: str) -> int:
        if self._is_resumed and name not in self._written:
            history = self._client.get_metric_history(self._id, name)
            self._written[name] = max((metric.step for metric in history), default=-1)
        return self._written.get(name, -1)

    def finish(self, result: Mapping[str, float], files: Sequence[Path]) -> None:
        """Writes the result as metrics, sends the files as artifacts, and ends the run."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        metrics = [Metric(f"result/{name}", value, now, 0) for name, value in result.items()]
        self._client.log_batch(self._id, metrics=metrics)
        for file in files:
            self._client.log_artifact(self._id, str(file))
        self._client.set_terminated(self._id)

    def close(self) -> None:
        """Marks the run as failed; a process that continues it marks it as running again."""
        self._client.set_terminated(self._id, status="FAILED")
