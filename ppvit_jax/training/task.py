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
      smoothing: label smoothing, for one label per image.

    Returns:
      [n].
    """
    if task == "multi_label":
        return optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype)).mean(-1)
    targets = jax.nn.one_hot(labels, logits.shape[-1]) if labels.ndim == 1 else labels
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))


def count_correct(logits: jax.Array, labels: jax.Array, task: str) -> jax.Array:
    """Counts the images with a correct prediction: the right class, or for several labels all of them.

    Args:
      logits: [n, classes].
      labels: see above; of mixed images, the class with the largest share counts.
      task: "single_label" or "multi_label".

    Returns:
      int [].
    """
    if task == "multi_label":
        return ((logits > 0) == (labels > 0.5)).all(-1).sum()
    return (jnp.argmax(logits, -1) == (labels if labels.ndim == 1 else jnp.argmax(labels, -1))).sum()
