"""Evaluation of a run: each epoch by all measures, the choice of the best weights, and the test images at the end.

Runs without validation images and with one label per image evaluate each epoch in `ppvit_jax.training.loop` instead.
"""

import sys
from collections.abc import Sequence
from typing import Any, cast

from ppvit_jax import models
from ppvit_jax.config import Config
from ppvit_jax.data import Dataset
from ppvit_jax.data.manifest import Header
from ppvit_jax.encryption import Secret
from ppvit_jax.errors import UserError
from ppvit_jax.training.averaging import Weights, select_weights
from ppvit_jax.training.evaluation.best import BestWeights
from ppvit_jax.training.evaluation.evaluator import Evaluator, check_task, name_measures
from ppvit_jax.training.evaluation.files import Origin, write_evaluation
from ppvit_jax.training.evaluation.measures import Measured
from ppvit_jax.training.log import Evaluation
from ppvit_jax.training.results import MetricsLine
from ppvit_jax.training.state import State
from ppvit_jax.training.tuning import FROZEN
from ppvit_jax.training.workdir import Workdir, agree


class RunEvaluation:
    """Evaluation of a run.

    Attributes:
      measures_epochs: True if each epoch is evaluated by all measures, not by loss and accuracy alone.
    """

    def __init__(self, model_config: models.ModelConfig, config: Config, dataset: Dataset, secret: Secret | None):
        """Checks the labels; the evaluation compiles when it is used.

        Args:
          model_config: the model's shape.
          config: the configuration of the run.
          dataset: its images.
          secret: arrays that encrypt images on the device; None leaves them as they are.

        Raises:
          UserError: the labels are not those of the task, or `config.best_by` is undefined on the validation images.
        """
        check_task(config, dataset)
        self.measures_epochs = dataset.validation is not None or config.task == "multi_label"
        # A report shows the measures of the test images.
        self._measures_test = self.measures_epochs or bool(config.report)
        self._config, self._dataset = config, dataset
        self._part = "test" if dataset.validation is None else "validation"
        self._evaluator = Evaluator(model_config, config, dataset, secret) if self._measures_test else None

    def evaluate(self, files: Workdir, step: int, state: State) -> Evaluation:
        """Evaluates the weights at the end of an epoch, and keeps them if they are the best so far.

        Raises:
          UserError: an image cannot be read, or a measure is not a number.
        """
        weights = select_weights(state)
        measured = self._measure(self._part, weights, state)
        values = name_measures(self._part, measured)
        best_by = self._config.best_by
        if best_by:
            if best_by not in values:
                raise UserError(f"the validation images define no {best_by}: use another measure in config.best_by")
            best, epochs = self._best(files), files.history("epoch")
            if agree(best.improves(values[best_by], epochs)):
                best.save(step, weights)
            best.prune(epochs, files.saved_step)
        loss, accuracy = (float(measured.values[name] or 0.0) for name in ("loss", "accuracy"))
        return Evaluation(loss, accuracy, measured.examples, measured.predicted_classes, self._part, values)

    def is_over(self, files: Workdir) -> bool:
        """Returns True if the run ends before its last epoch, and says so."""
        if not self._config.patience:
            return False
        best, epochs = self._best(files), files.history("epoch")
        over = agree(best.is_over(epochs))
        if over and files.writes:
            print(
                f"{self._config.best_by} is no better than after epoch {best.find(epochs)['epoch']}: the run ends "
                f"after epoch {epochs[-1]['epoch']} of {self._config.epochs} (config.patience is "
                f"{self._config.patience})",
                file=sys.stderr,
            )
        return over

    def finish(
        self, files: Workdir, state: State, epochs: Sequence[MetricsLine], images: Header
    ) -> tuple[Weights, list[MetricsLine], dict[str, Any]]:
        """Chooses the weights to hand over, evaluates them on the test images, and writes evaluation.json.

        Args:
          files: the workdir.
          state: the final state.
          epochs: the epoch lines of metrics.jsonl.
          images: encryption of the images.

        Returns:
          The weights; the epoch lines, the last one with the measures of the test images; and further fields of
          result.json.
        """
        weights, config = select_weights(state), self._config
        lines, extra = list(epochs), {}
        chosen = lines[-1]
        if config.best_by:
            best = self._best(files)
            chosen = best.find(lines)
            weights = best.load(chosen["step"], weights)
            extra |= {
                "best_by": config.best_by,
                "best_value": {**chosen}[config.best_by],
                "best_epoch": chosen["epoch"],
            }
            if config.patience:
                extra["stopped_early"] = best.is_over(lines) and lines[-1]["epoch"] < config.epochs
        if not self._measures_test:
            return weights, lines, extra
        measured = self._measure("test", weights, state)
        if self._part == "validation":
            values = dict(name_measures("test", measured))
            lines[-1] = cast(MetricsLine, {**lines[-1], **values, "predicted_classes": measured.predicted_classes})
            if files.writes:
                handed = f"weights of epoch {chosen['epoch']} of {config.epochs}: " if config.best_by else ""
                print(
                    f"{handed}test loss {values['test_loss']:.4f} test accuracy {values['test_accuracy']:.2%} "
                    f"({measured.examples} images)",
                    file=sys.stderr,
                )
        if self.measures_epochs:
            names = {"validation": "val_", "test": "test_"}
            extra["measures"] = {
                part: {name.removeprefix(prefix): value for name, value in {**line}.items() if name.startswith(prefix)}
                for (part, prefix), line in zip(names.items(), (chosen, lines[-1]), strict=True)
                if part in ("test", self._part)
            }
        if files.writes:
            origin = Origin(
                checkpoint="checkpoint.npz",
                images=self._dataset.name,
                split="test",
                encryption=images.encryption,
                key_fingerprint=images.key_fingerprint,
            )
            write_evaluation(files.path, measured, self._dataset.class_names, origin)
        return weights, lines, extra

    def clean_up(self, files: Workdir) -> None:
        """Removes the best weights from the workdir, once checkpoint.npz has them."""
        if self._config.best_by:
            self._best(files).remove()

    def _measure(self, part: str, weights: Weights, state: State) -> Measured:
        assert self._evaluator is not None
        return self._evaluator.measure(part, weights, state.get(FROZEN))

    def _best(self, files: Workdir) -> BestWeights:
        return BestWeights(files.path, self._config)
