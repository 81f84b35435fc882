"""Measures agree with scikit-learn, and with plain loops."""

import math

import numpy as np
import pytest
from sklearn import metrics

from ppvit_jax.training.evaluation.measures import BINS, make_measures
from ppvit_jax.training.evaluation.ranking import average_precision, roc_auc


def _softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _measure(task, logits, labels, batch=7):
    measures = make_measures(task, logits.shape[1])
    for start in range(0, len(logits), batch):
        measures.add(logits[start : start + batch], labels[start : start + batch])
    return measures.compute()


def _draw(classes, count=200, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count).astype(np.int32)
    logits = random.normal(0, 2, (count, classes)).astype(np.float32)
    logits[np.arange(count), labels] += 1
    return logits, labels


def _calibration_error(logits, labels):
    bins = [[] for _ in range(BINS)]
    for row, label in zip(_softmax(logits.astype(np.float64)), labels, strict=True):
        confidence = row.max()
        number = next(n for n in range(BINS) if n / BINS < confidence <= (n + 1) / BINS)
        bins[number].append((confidence, row.argmax() == label))
    error = 0.0
    for entries in filter(None, bins):
        confidences, hits = zip(*entries, strict=True)
        error += len(entries) / len(labels) * abs(np.mean(hits) - np.mean(confidences))
    return error


def test_measures_of_one_label_are_those_of_scikit_learn():
    logits, labels = _draw(10)
    measured = _measure("single_label", logits, labels)
    predicted, every = logits.argmax(1), np.arange(10)
    expected = {
        "loss": metrics.log_loss(labels, _softmax(logits.astype(np.float64)), labels=every),
        "accuracy": metrics.accuracy_score(labels, predicted),
        "top5_accuracy": metrics.top_k_accuracy_score(labels, logits, k=5, labels=every),
        "macro_accuracy": metrics.balanced_accuracy_score(labels, predicted),
        "calibration_error": _calibration_error(logits, labels),
    }
    assert measured.values.pop("roc_auc") is None
    assert measured.values == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(measured.confusion, metrics.confusion_matrix(labels, predicted, labels=every))
    recalls = [np.mean(predicted[labels == label] == label) for label in every]
    assert [row["accuracy"] for row in measured.per_class] == pytest.approx(recalls)
    assert (measured.examples, measured.predicted_classes) == (200, 10)
    assert sum(bin["examples"] for bin in measured.calibration) == 200


def test_two_classes_have_an_area_under_the_roc_curve():
    logits, labels = _draw(2, seed=3)
    measured = _measure("single_label", logits, labels)
    scores = _softmax(logits.astype(np.float64))[:, 1]
    assert measured.values["roc_auc"] == pytest.approx(metrics.roc_auc_score(labels, scores), rel=1e-12)
    assert measured.values["top5_accuracy"] is None


@pytest.mark.parametrize("seed", range(5))
def test_equal_scores_are_ranked_as_scikit_learn_ranks_them(seed):
    random = np.random.default_rng(seed)
    scores, labels = random.integers(0, 6, 50).astype(np.float32), random.integers(0, 2, 50)
    assert roc_auc(scores, labels) == pytest.approx(metrics.roc_auc_score(labels, scores), rel=1e-12)
    assert average_precision(scores, labels) == pytest.approx(
        metrics.average_precision_score(labels, scores), rel=1e-12
    )


def test_measures_that_the_images_do_not_define_are_none():
    assert roc_auc(np.array([1.0, 2.0]), np.array([1, 1])) is None
    assert average_precision(np.array([1.0, 2.0]), np.array([0, 0])) is None
    measured = _measure("single_label", np.zeros((3, 4), np.float32), np.zeros(3, np.int32))
    # Classes without images do not count.
    assert measured.values["macro_accuracy"] == 1
    assert measured.per_class[1] == {"examples": 0, "predicted": 0, "accuracy": None}
    assert measured.values["loss"] == pytest.approx(math.log(4))


def test_equal_logits_rank_by_their_class_as_in_argmax():
    logits, labels = np.zeros((6, 6), np.float32), np.arange(6, dtype=np.int32)
    measured = _measure("single_label", logits, labels)
    assert measured.values["accuracy"] == pytest.approx(1 / 6)
    assert measured.values["top5_accuracy"] == pytest.approx(5 / 6)


def test_measures_of_several_labels_are_those_of_scikit_learn():
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, (120, 5)).astype(np.float32)
    labels = (random.normal(0, 1, (120, 5)) + logits > 1).astype(np.uint8)
    measured = _measure("multi_label", logits, labels)
    exact = logits.astype(np.float64)
    probabilities, predicted = 1 / (1 + np.exp(-exact)), logits > 0
    expected = {
        "loss": np.mean([metrics.log_loss(labels[:, c], probabilities[:, c], labels=[0, 1]) for c in range(5)]),
        "accuracy": metrics.accuracy_score(labels, predicted),
        "label_accuracy": 1 - metrics.hamming_loss(labels, predicted),
        "mean_average_precision": metrics.average_precision_score(labels, logits, average="macro"),
    }
    assert measured.values == pytest.approx(expected, rel=1e-10)
    assert measured.confusion is None
    assert [row["examples"] for row in measured.per_class] == labels.sum(0).tolist()


def test_a_class_without_a_positive_image_has_no_average_precision():
    labels = np.array([[1, 0], [0, 0], [1, 0]], np.uint8)
    measured = _measure("multi_label", np.array([[3.0, 1], [-1, 0], [-2, 5]], np.float32), labels)
    assert measured.per_class[1]["average_precision"] is None
    assert measured.values["mean_average_precision"] == measured.per_class[0]["average_precision"]
    assert measured.values["mean_average_precision"] == pytest.approx((1 + 2 / 3) / 2)


def test_the_confusion_matrix_of_very_many_classes_is_not_kept():
    logits = np.zeros((2, 2049), np.float32)
    assert _measure("single_label", logits, np.array([0, 2048], np.int32)).confusion is None
