"""Evaluation of a run's weights on its validation or test images, by all measures."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ppvit_jax import models
from ppvit_jax.config import Config
from ppvit_jax.data import BatchOptions, Dataset, test_batches
from ppvit_jax.data.loader import FIRST_TEST_NUMBER, FIRST_VALIDATION_NUMBER
from ppvit_jax.encryption import Secret
from ppvit_jax.errors import UserError
from ppvit_jax.training.averaging import Weights
from ppvit_jax.training.devices import replicate_images, shard_batches, shardings
from ppvit_jax.training.evaluation.measures import Measured, make_measures
from ppvit_jax.training.step import compile_logits


def check_task(config: Config, dataset: Dataset) -> None:
    """Makes sure that the labels are those of the task, and that the validation images define `best_by`.

    Raises:
      UserError: they do not.
    """
    several = dataset.train.labels.ndim == 2
    if several != (config.task == "multi_label"):
        labels, task = ("any number of labels", "multi_label") if several else ("one label", "single_label")
        raise UserError(
            f"config.task is {config.task!r}, but the images of {dataset.name} have {labels} each: set "
            f"config.task={task}, or give other images"
        )
    for source in (dataset.train, dataset.test, dataset.validation):
        shape = source.labels.shape[1:] if source is not None else ()
        if source is not None and shape != ((len(dataset.class_names),) if several else ()):
            raise UserError(
                f"the labels of {dataset.name} have the shape {source.labels.shape}, but there are "
                f"{len(dataset.class_names)} class names: give a column for each class"
            )
    if not config.best_by:
        return
    if dataset.validation is None:
        raise UserError(
            f"config.best_by is {config.best_by!r}, but {dataset.name} has no validation images: set "
            "config.data.validation"
        )
    labels, reason = dataset.validation.labels, ""
    if config.best_by == "val_roc_auc":
        if len(dataset.class_names) != 2:
            reason = f"it is for two classes, and there are {len(dataset.class_names)}"
        elif len(np.unique(labels)) < 2:
            reason = "the validation images show one class alone"
    if config.best_by == "val_top5_accuracy" and len(dataset.class_names) < 6:
        reason = f"it is for six classes or more, and there are {len(dataset.class_names)}"
    if config.best_by == "val_mean_average_precision" and not labels.any():
        reason = "no validation image has a label"
    if reason:
        raise UserError(f"config.best_by is {config.best_by!r}, but {reason}: use another measure, such as val_loss")


class Evaluator:
    """Measures of a run's weights."""

    def __init__(self, model_config: models.ModelConfig, config: Config, dataset: Dataset, secret: Secret | None):
        """Prepares the evaluation; it compiles when it is used.

        Args:
          model_config: the model's shape.
          config: the configuration of the run.
          dataset: its images.
          secret: arrays that encrypt images on the device; None leaves them as they are.
        """
        self._apply = compile_logits(model_config, config)
        self._config, self._dataset = config, dataset
        self._secret = None if secret is None else jax.device_put(secret, shardings()[0])
        self._images: dict[str, jax.Array | None] = {}

    def measure(self, part: str, weights: Weights, frozen: models.Params | None = None) -> Measured:
        """Computes the measures of some weights.

        Args:
          part: "test" or "validation".
          weights: the weights; see `ppvit_jax.training.averaging.select_weights`.
          frozen: the rest of the model, if the weights are a part of it.

        Raises:
          UserError: an image cannot be read.
        """
        source = self._dataset.test if part == "test" else self._dataset.validation
        assert source is not None
        if part not in self._images:
            self._images[part] = replicate_images(source, self._config.data.on_device)
        images = self._images[part]
        processes: dict[str, Any] = {"process_index": jax.process_index(), "process_count": jax.process_count()}
        options = BatchOptions(self._config.eval_batch_size, **processes, index_only=images is not None)
        first = FIRST_TEST_NUMBER if part == "test" else FIRST_VALIDATION_NUMBER
        measures = make_measures(self._config.task, len(self._dataset.class_names))
        start = 0
        for batch in shard_batches(test_batches(source, options, first), images):
            logits = np.asarray(self._apply(weights["params"], weights["statistics"], batch, self._secret, frozen))
            labels = source.labels[start : start + len(logits)]
            measures.add(logits[: len(labels)], labels)
            start += len(labels)
        return measures.compute()


def name_measures(part: str, measured: Measured) -> Mapping[str, float]:
    """Returns the defined measures by their names in metrics.jsonl, such as "val_loss", and the number of images."""
    prefix = "val" if part == "validation" else part
    values = {name: value for name, value in measured.values.items() if value is not None}
    return {f"{prefix}_{name}": value for name, value in values.items()} | {f"{prefix}_examples": measured.examples}
