"""Classes of different sizes: their weights in the loss, and orders of images that show each equally often."""

import numpy as np

from ppvit_jax.errors import UserError

CLASS_WEIGHTS = ("none", "balanced")
SAMPLINGS = ("uniform", "balanced")


def balanced_weights(labels: np.ndarray) -> np.ndarray:
    """Returns a weight for each class, n / (classes * count), as scikit-learn's `compute_class_weight("balanced")`.

    The mean weight of an image is 1.

    Args:
      labels: the class of each of n images, int [n].

    Returns:
      float32 [highest class + 1]; 0 for classes without images, which do not count among the classes.
    """
    counts = np.bincount(_check_classes(labels))
    present = counts > 0
    return np.where(present, len(labels) / (present.sum() * np.maximum(counts, 1)), 0).astype(np.float32)


def balanced_order(labels: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Draws an order of images in which each class comes equally often, up to one image, in random places.

    All images of a class come before one of them is repeated.

    Args:
      labels: the class of each of n images, int [n].
      length: number of places in the order.
      rng: the source of randomness.

    Returns:
      int64 [length], indices of images.
    """
    members = np.split(np.argsort(_check_classes(labels), kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    members = [indices for indices in members if len(indices)]
    shares = length // len(members) + (rng.permutation(len(members)) < length % len(members))
    chosen = [
        np.concatenate([rng.permutation(indices) for _ in range(-(-share // len(indices)))] or [indices[:0]])[:share]
        for indices, share in zip(members, shares, strict=True)
    ]
    return rng.permutation(np.concatenate(chosen))


def _check_classes(labels: np.ndarray) -> np.ndarray:
    """Returns the labels.

    Raises:
      UserError: an image has several labels.
    """
    if np.ndim(labels) != 1:
        raise UserError(
            "images with several labels have no class to balance: set config.class_weights=none and "
            "config.data.sampling=uniform"
        )
    return labels
