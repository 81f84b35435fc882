"""Examples of a training step, their targets, and the loss of each."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ppvit_jax.cloud_augmentation import next_examples
from ppvit_jax.training.task import compute_losses


class Examples(NamedTuple):
    """Examples of a training step.

    Attributes:
      images: [batch, height, width, 3], uint8, or floating-point input of the model.
      labels: int [batch], or [batch, classes] of 0 and 1; those with the larger share if images are mixed.
      weights: floating point [batch], the weight of each loss; None for 1.
      targets: floating point [batch, classes] for mixed images, smoothed and weighted; None for those of the labels.
      kept: int32 [batch, tokens], the patches that the model keeps; None for all.
    """

    images: jax.Array
    labels: jax.Array
    weights: jax.Array | None
    targets: jax.Array | None = None
    kept: jax.Array | None = None

    def losses(self, logits: jax.Array, label_smoothing: float, task: str = "single_label") -> jax.Array:
        """Returns the loss of each example, weighted: [batch]; see `ppvit_jax.training.task.compute_losses`."""
        if self.targets is not None:
            return compute_losses(logits, self.targets, task)
        losses = compute_losses(logits, self.labels, task, label_smoothing)
        return losses if self.weights is None else losses * self.weights

    def mix_labels(self, shares: jax.Array | None, classes: int, label_smoothing: float) -> "Examples":
        """Mixes the labels of each example with those of the next, as `ppvit_jax.cloud_augmentation` mixes images.

        Cross-entropy is linear in the targets, so the loss of a mixture is that of both labels, with their shares.

        Args:
          shares: floating point [batch], the share of each image in its mixture; None without mixing.
          classes: number of classes.
          label_smoothing: see `config.label_smoothing`.
        """
        if shares is None:
            return self
        if self.labels.ndim == 2:
            targets = self.labels.astype(shares.dtype)
        else:
            targets = optax.smooth_labels(jax.nn.one_hot(self.labels, classes), label_smoothing)
        if self.weights is not None:
            targets *= self.weights[:, None]
        own = shares.astype(targets.dtype)[:, None]
        targets = own * targets + (1 - own) * next_examples(targets)
        is_larger = (shares >= 0.5).reshape(-1, *[1] * (self.labels.ndim - 1))
        labels = jnp.where(is_larger, self.labels, next_examples(self.labels))
        return self._replace(labels=labels, weights=None, targets=targets)
