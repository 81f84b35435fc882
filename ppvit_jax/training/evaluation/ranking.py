"""Measures of a ranking of images by their scores: the area under the ROC curve, and the average precision."""

import numpy as np


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Computes the area under the ROC curve: P(s+ > s-) + P(s+ = s-) / 2 for a positive and a negative image.

    Args:
      scores: float [n], higher for images that are more likely positive.
      labels: [n], 1 for positive images and 0 for negative ones.

    Returns:
      The area, 0 to 1; None if all images are positive or none is.
    """
    positive = np.asarray(labels) > 0
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    # Equal scores share the mean of their ranks, counted from 1.
    ranks = np.cumsum(counts) - (counts - 1) / 2
    # Mann and Whitney's U.
    wins = float(ranks[places][positive].sum()) - positives * (positives + 1) / 2
    return wins / positives / negatives


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Computes the average precision: sum_n (R_n - R_{n-1}) P_n over the distinct scores as thresholds, descending.

    R_n and P_n are recall and precision of the images whose score is at least the n-th one.

    Args:
      scores: float [n].
      labels: [n], 1 for positive images and 0 for negative ones.

    Returns:
      The average precision, 0 to 1; None if no image is positive.
    """
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], np.cumsum(np.asarray(labels)[order] > 0)
    if not len(hits) or not hits[-1]:
        return None
    last = np.append(np.flatnonzero(np.diff(sorted_scores)), len(sorted_scores) - 1)
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float((np.diff(recall, prepend=0) * precision).sum())
