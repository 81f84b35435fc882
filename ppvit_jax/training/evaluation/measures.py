"""Measures of a model on labeled images, from its logits: accuracy, calibration, confusion of classes and more."""

import dataclasses
import math
from typing import Any, Protocol

import numpy as np

from ppvit_jax.training.evaluation.ranking import average_precision, roc_auc

BINS = 15
TOP = 5
# Above this number of classes no confusion matrix is kept, because it would take more than 32 MiB.
MAX_CONFUSION_CLASSES = 2048


@dataclasses.dataclass(frozen=True)
class Measured:
    """Measures of a model on a set of images.

    Attributes:
      task: "single_label" or "multi_label".
      examples: number of images.
      values: the measures by name; None for one that these images do not define. See `SINGLE_LABEL` and `MULTI_LABEL`.
      per_class: measures of each class, in the order of the classes.
      predicted_classes: number of classes that are predicted for at least one image.
      confusion: int64 [classes, classes], the number of images of each class (row) that are predicted as each class
        (column); None for several labels per image, and for more than 2,048 classes.
      calibration: examples, mean confidence and accuracy of each bin of the calibration error.
    """

    task: str
    examples: int
    values: dict[str, float | None]
    per_class: list[dict[str, Any]]
    predicted_classes: int
    confusion: np.ndarray | None = None
    calibration: tuple[dict[str, Any], ...] = ()


class Measures(Protocol):
    """Measures that grow with each batch of logits."""

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Adds a batch: logits [n, classes] and labels [n], or [n, classes] for several labels per image."""
        ...

    def compute(self) -> Measured:
        """Returns the measures of all images that were added."""
        ...


def make_measures(task: str, classes: int) -> Measures:
    """Returns empty measures for a task: "single_label" or "multi_label"."""
    return MultiLabel(classes) if task == "multi_label" else SingleLabel(classes)


class SingleLabel:
    """Measures of images with one label each.

    Memory does not grow with the number of images, except for two classes: the ROC AUC keeps one number per image.
    """

    def __init__(self, classes: int):
        self._classes = classes
        self._loss = 0.0
        self._in_top = 0
        self._examples, self._correct, self._predicted = (np.zeros(classes, np.int64) for _ in range(3))
        self._bin_examples, self._bin_correct = (np.zeros(BINS, np.int64) for _ in range(2))
        self._bin_confidence = np.zeros(BINS)
        self._confusion = np.zeros((classes, classes), np.int64) if classes <= MAX_CONFUSION_CLASSES else None
        self._scores: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Adds a batch: logits [n, classes] and labels int [n]."""
        logits, rows = np.asarray(logits, np.float64), np.arange(len(labels))
        shifted = logits - logits.max(axis=1, keepdims=True)
        exponentials = np.exp(shifted)
        sums = exponentials.sum(axis=1)
        predicted = logits.argmax(axis=1)
        correct = predicted == labels
        self._loss += float((np.log(sums) - shifted[rows, labels]).sum())
        of_label = logits[rows, labels][:, None]
        # Equal logits rank by their class, as in argmax.
        before = np.arange(self._classes) < labels[:, None]
        rank = (logits > of_label).sum(axis=1) + ((logits == of_label) & before).sum(axis=1)
        self._in_top += int((rank < TOP).sum())
        self._examples += np.bincount(labels, minlength=self._classes)
        self._predicted += np.bincount(predicted, minlength=self._classes)
        self._correct += np.bincount(labels[correct], minlength=self._classes)
        if self._confusion is not None:
            np.add.at(self._confusion, (labels, predicted), 1)
        confidence = exponentials[rows, predicted] / sums
        # Bin i has the confidences in (i / BINS, (i + 1) / BINS].
        place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        self._bin_examples += np.bincount(place, minlength=BINS)
        self._bin_correct += np.bincount(place[correct], minlength=BINS)
        self._bin_confidence += np.bincount(place, confidence, BINS)
        if self._classes == 2:
            self._scores.append(logits[:, 1] - logits[:, 0])
            self._labels.append(np.asarray(labels, np.uint8))

    def compute(self) -> Measured:
        """Returns the measures of all images that were added."""
        count = int(self._examples.sum())
        shown = self._examples > 0
        accuracies = self._correct[shown] / self._examples[shown]
        gaps = np.abs(self._bin_correct - self._bin_confidence).sum()
        values: dict[str, float | None] = {
            "loss": _divide(self._loss, count),
            "accuracy": _divide(float(self._correct.sum()), count),
            "top5_accuracy": _divide(self._in_top, count) if self._classes > TOP else None,
            "macro_accuracy": float(accuracies.mean()) if count else None,
            "calibration_error": _divide(float(gaps), count),
            "roc_auc": None,
        }
        if self._scores:
            values["roc_auc"] = roc_auc(np.concatenate(self._scores), np.concatenate(self._labels))
        per_class = [
            {"examples": int(examples), "predicted": int(predicted), "accuracy": _divide(int(correct), int(examples))}
            for examples, predicted, correct in zip(self._examples, self._predicted, self._correct, strict=True)
        ]
        calibration = tuple(
            {"examples": int(n), "confidence": _divide(float(confidence), n), "accuracy": _divide(int(correct), n)}
            for n, confidence, correct in zip(
                self._bin_examples.tolist(), self._bin_confidence, self._bin_correct, strict=True
            )
        )
        predicted_classes = int(np.count_nonzero(self._predicted))
        return Measured("single_label", count, values, per_class, predicted_classes, self._confusion, calibration)


class MultiLabel:
    """Measures of images with any number of labels each; a label is predicted if its logit is positive.

    The mean average precision keeps one score for each image and class, beside the labels.
    """

    def __init__(self, classes: int):
        self._classes = classes
        self._scores: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._loss = 0.0

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Adds a batch: logits [n, classes] and labels of 0 and 1, [n, classes]."""
        exact = np.asarray(logits, np.float64)
        # -log(sigmoid(x)) for a label that is set, and -log(sigmoid(-x)) for one that is not.
        losses = np.logaddexp(0, np.where(labels > 0, -exact, exact))
        self._loss += float(losses.mean(axis=1).sum())
        self._scores.append(np.array(logits, np.float32))
        self._labels.append(np.asarray(labels) > 0)

    def compute(self) -> Measured:
        """Returns the measures of all images that were added."""
        scores = np.concatenate([np.zeros((0, self._classes), np.float32), *self._scores])
        labels = np.concatenate([np.zeros((0, self._classes), bool), *self._labels])
        count, predicted = len(scores), scores > 0
        precisions = [average_precision(scores[:, index], labels[:, index]) for index in range(self._classes)]
        defined = [precision for precision in precisions if precision is not None]
        values = {
            "loss": _divide(self._loss, count),
            "accuracy": _divide(int((predicted == labels).all(axis=1).sum()), count),
            "label_accuracy": _divide(int((predicted == labels).sum()), count * self._classes),
            "mean_average_precision": math.fsum(defined) / len(defined) if defined else None,
        }
        per_class = [
            {
                "examples": int(labels[:, index].sum()),
                "predicted": int(predicted[:, index].sum()),
                "average_precision": precision,
            }
            for index, precision in enumerate(precisions)
        ]
        return Measured("multi_label", count, values, per_class, int(np.count_nonzero(predicted.any(axis=0))))


def _divide(total: float, count: int) -> float | None:
    return float(total) / count if count else None
