"""Losses of the two tasks, one label per image and any number of labels per image, and counts of correct predictions.

Labels are classes, int [n], or have a value from 0 to 1 for each class, [n, classes]: several labels per image, or the
labels of mixed images.
"""

import jax
import jax.numpy as jnp
import optax


def compute_losses(logits: jax.Array, labels: jax.Array, task: str, smoothing: float = 0.0) -> jax.Array:
    """Computes the loss of each image.

    Args:
      logits: [n, classes].
      labels: see above.
      task: "single_label" for the softmax cross-entropy, or "multi_label" for the mean over the classes of the sigmoid
        cross-entropy, -y log(sigmoid(x)) - (1 - y) log(sigmoid(-x)).
      smoothing: label smoothing, for labels that are classes.

    Returns:
      [n].
    """
    if task == "multi_label":
        return optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype)).mean(-1)
    if labels.ndim == 2:
        return optax.softmax_cross_entropy(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def count_correct(logits: jax.Array, labels: jax.Array, task: str) -> jax.Array:
    """Counts the images with a correct prediction: the right class, or for several labels all of them.

    Args:
      logits: [n, classes].
      labels: classes, int [n], or [n, classes] of 0 and 1 for several labels per image.
      task: "single_label" or "multi_label".

    Returns:
      int [].
    """
    if task == "multi_label":
        return ((logits > 0) == (labels > 0)).all(-1).sum()
    return (jnp.argmax(logits, -1) == labels).sum()
