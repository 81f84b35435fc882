"""Layers shared by several model families."""

from collections.abc import Sequence

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

# PyTorch's default for linear layers and convolutions, kaiming_uniform_ with a = sqrt(5): uniform up to 1/sqrt(fan in).
pytorch_kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def pytorch_bias_init(inputs: int) -> nn.initializers.Initializer:
    """Returns PyTorch's default for biases: uniform between -1/sqrt(inputs) and 1/sqrt(inputs).

    Args:
      inputs: the layer's fan in: its inputs, times the area of the kernel of a convolution.
    """
    bound = inputs**-0.5

    def init(rng: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        return jax.random.uniform(rng, tuple(shape), dtype, -bound, bound)

    return init


def permutation_penalty(matrix: jax.Array) -> jax.Array:
    """Measures the distance of a matrix from a permutation matrix: L_U of Madono's public code.

    L_U = sum over rows and columns of (l1 norm - l2 norm), divided by n^2. A vector's norms are equal if it has at most
    one nonzero element.

    Args:
      matrix: [n, n], floating point.

    Returns:
      A scalar, 0 for a permutation matrix.
    """
    chex.assert_type(matrix, float)
    chex.assert_shape(matrix, (matrix.shape[-1],) * 2)
    total = jnp.zeros((), matrix.dtype)
    for axis in (0, 1):
        squares = jnp.square(matrix).sum(axis)
        # The square root has no gradient at 0, and the squares of a nearly one-hot softmax underflow to 0.
        positive = squares > 0
        norm = jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)
        total += (jnp.abs(matrix).sum(axis) - norm).sum()
    return total / matrix.size


class BatchNorm(nn.Module):
    """Batch normalization over all axes but the last, as PyTorch computes it.

    In training, the batch's mean and (biased) variance normalize, and the running statistics move by `momentum` toward
    the mean and the *unbiased* variance. In evaluation, the running statistics normalize. Flax's own layer tracks the
    biased variance. Reference: torch.nn.BatchNorm2d.

    The parameters are "scale" and "bias" [features], the statistics "mean" and "variance" [features].
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
