"""Layers that several families share."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

# PyTorch's default for linear layers and convolutions, kaiming_uniform_ with a = sqrt(5): uniform up to 1/sqrt(fan in).
pytorch_kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def permutation_penalty(matrix: jax.Array) -> jax.Array:
    """Measures the distance of a matrix from a permutation, whose rows and columns have one element each.

    sum(l1 norm - l2 norm) over rows and columns / number of elements: L_U of Madono's public code.

    Args:
      matrix: [n, n], floating point.

    Returns:
      A scalar, 0 for a permutation.
    """
    chex.assert_type(matrix, float)
    chex.assert_shape(matrix, (matrix.shape[-1],) * 2)
    total = jnp.zeros((), matrix.dtype)
    for axis in (0, 1):
        squares = jnp.square(matrix).sum(axis)
        # The root has no gradient at 0, where the squares of a nearly one-hot softmax underflow to.
        positive = squares > 0
        norm = jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)
        total += (jnp.abs(matrix).sum(axis) - norm).sum()
    return total / matrix.size


class BatchNorm(nn.Module):
    """Batch normalization over all axes but the last, as PyTorch computes it.

    In training the batch's own mean and (biased) variance normalize, and the running ones move by `momentum`
    toward the mean and the *unbiased* variance; in evaluation the running ones normalize. Flax's own layer keeps
    the biased variance. Reference: torch.nn.BatchNorm2d.

    Parameters "scale" and "bias" [features]; statistics "mean" and "variance" [features].
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        chex.assert_type(x, float)
        features = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (features,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (features,), jnp.float32)
        running_mean = self.variable("statistics", "mean", jnp.zeros, (features,), jnp.float32)
        running_variance = self.variable("statistics", "variance", jnp.ones, (features,), jnp.float32)
        precise = jnp.promote_types(self.dtype, jnp.float32)
        x = x.astype(precise)
        if train:
            axes = tuple(range(x.ndim - 1))
            count = x.size // features
            mean, variance = x.mean(axes), x.var(axes)
            if not self.is_initializing():
                for running, new in ((running_mean, mean), (running_variance, variance * count / max(count - 1, 1))):
                    moved = (1 - self.momentum) * running.value + self.momentum * jax.lax.stop_gradient(new)
                    running.value = moved.astype(running.value.dtype)
        else:
            mean, variance = running_mean.value, running_variance.value
        return ((x - mean) * jax.lax.rsqrt(variance + self.epsilon) * scale + bias).astype(self.dtype)
