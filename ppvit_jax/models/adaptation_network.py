"""Adaptation networks: small networks in front of a classifier that learn to undo a block-wise encryption.

Each takes encrypted images [batch, size, size, 3], with `size` a multiple of 4, and returns features of the same height
and width for the classifier. From public code (the folder `archive` of Madono's repository, and Tanaka's for his own
network) we took the layers and their order, the order of the blocks, the slopes, the biases, the batch normalization of
one block at a time, the spectral normalization, the free matrix, both penalties with their weights, and all initial
distributions.

Madono's kernels start from N(0, 2 / n) with n = kernel area * outputs. Tanaka's are Keras layers: kernels start from
`he_normal`, biases at zero, and the batch normalizations have Keras' constants.

We inferred one thing: at sizes other than 32, the public code's constants 64, 31 and 32 become the number of blocks,
size - 1 and size.
"""

import functools
import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ppvit_jax.models.layers import BatchNorm, permutation_penalty, pytorch_kernel_init

BLOCK = 4
CHANNELS = 16
# N(0, 2 / n) with n = kernel area * outputs. A kernel [..., inputs, outputs] of ours has the area among its inputs.
_madono_kernels = nn.initializers.variance_scaling(2 / BLOCK**2, "fan_out", "normal")
_madono_block_kernels = nn.initializers.variance_scaling(2 / BLOCK**2, "fan_out", "normal", batch_axis=0)
_keras_kernels = nn.initializers.he_normal()
# Keras' defaults: epsilon, and the weight of a batch in the running statistics, which Keras gives as momentum 0.99.
_KERAS_EPSILON, _KERAS_MOMENTUM = 1e-3, 0.01


class LEAdaptNet(nn.Module):
    """Madono's adaptation network for LE: images [batch, size, size, 3] to [batch, size, size, 16] in `dtype`.

    All blocks share a 4x4 convolution to 256 channels, here a matrix "projection" [48, 256] with rows in
    (row, column, channel) order. They also share one batch normalization, which they pass one after another. LeakyReLU
    with slope 0.1 and PixelShuffle follow.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        features = CHANNELS * BLOCK**2
        x = nn.Dense(features, use_bias=False, dtype=self.dtype, kernel_init=_madono_kernels, name="projection")(
            _split(images)
        )
        x = _BlockBatchNorm(shared=True, dtype=self.dtype, name="norm")(x, train)
        return _pixel_shuffle(nn.leaky_relu(x, 0.1))


class TanakaAdaptNet(nn.Module):
    """Tanaka's adaptation network for LE: images [batch, size, size, 3] to [batch, size, size, 32] in `dtype`.

    Three ordinary batch normalizations (also over positions) alternate with three convolutions that all blocks share:
    4x4 to 48 channels and ReLU, 1x1 to 48 and ReLU, 1x1 to 512. PixelShuffle follows. Like the other networks, it
    tracks the unbiased variance.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        norm = functools.partial(BatchNorm, _KERAS_MOMENTUM, _KERAS_EPSILON, self.dtype)
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=_keras_kernels)
        x = _split(norm(name="norm_0")(images, train))
        x = nn.relu(dense(48, name="dense_0")(x))
        x = norm(name="norm_1")(x, train)
        x = nn.relu(dense(48, name="dense_1")(x))
        x = norm(name="norm_2")(x, train)
        return _pixel_shuffle(dense(32 * BLOCK**2, name="dense_2")(x))


class ELEAdaptNet(nn.Module):
    """Madono's adaptation network for ELE: images [batch, size, size, 3] to [batch, size, size, 16] in `dtype`.

    Each of the N blocks has its own spectrally normalized 4x4 convolution to 256 channels and its own batch
    normalization, followed by LeakyReLU with slope 0.2. A free matrix "mixing" [N, N] (source, target) recombines the
    blocks, and PixelShuffle unfolds them.

    In training the network sows two terms into "penalties": penalty_weight * L_U, which pulls the matrix toward a
    permutation, and smoothness_weight * L_s, which pulls neighboring pixels together.
    """

    penalty_weight: float = 1e-3
    smoothness_weight: float = 0.1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        x = _SpectralDense(CHANNELS * BLOCK**2, dtype=self.dtype, name="projection")(_split(images), train)
        x = _BlockBatchNorm(shared=False, dtype=self.dtype, name="norm")(x, train)
        x = nn.leaky_relu(x, 0.2)
        blocks = x.shape[1]
        mixing = self.param("mixing", pytorch_kernel_init, (blocks, blocks), jnp.float32)
        output = _pixel_shuffle(jnp.einsum("bif,ij->bjf", x, mixing.astype(x.dtype)))
        if train:
            self.sow("penalties", "mixing", self.penalty_weight * permutation_penalty(mixing))
            self.sow("penalties", "smoothness", self.smoothness_weight * smoothness_penalty(output))
        return output


def smoothness_penalty(features: jax.Array) -> jax.Array:
    """Computes L_s of Madono's public code: squared forward differences of the first 3 channels.

    L_s = sum((x[i + 1, j] - x[i, j])^2 + (x[i, j + 1] - x[i, j])^2) / ((size - 1) * size * channels * batch),
    without the last row and column. The divisor has all channels, although the sum has 3, as in the public code.

    Args:
      features: [batch, size, size, channels], floating point.

    Returns:
      A scalar in at least float32.
    """
    chex.assert_type(features, float)
    chex.assert_shape(features, (None, features.shape[-2], None, None))
    batch, size, _, channels = features.shape
    x = features[..., :3].astype(jnp.promote_types(features.dtype, jnp.float32))
    corner = x[:, :-1, :-1]
    squares = jnp.square(x[:, 1:, :-1] - corner) + jnp.square(x[:, :-1, 1:] - corner)
    return squares.sum() / ((size - 1) * size * channels * batch)


class _BlockBatchNorm(nn.Module):
    """Normalizes each block of [batch, blocks, features] by its own mean and variance over the batch.

    If `shared`, the blocks pass through one layer one after another: parameters and statistics are [features], and the
    running statistics are updated once per block. Otherwise each block has its own, [blocks, features].
    """

    shared: bool
    momentum: float = 0.1
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        batch, blocks, features = x.shape
        shape = (features,) if self.shared else (blocks, features)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean = self.variable("statistics", "mean", jnp.zeros, shape, jnp.float32)
        running_variance = self.variable("statistics", "variance", jnp.ones, shape, jnp.float32)
        x = x.astype(jnp.promote_types(self.dtype, jnp.float32))
        if train:
            mean, variance = x.mean(0), x.var(0)
            if not self.is_initializing():
                for running, new in ((running_mean, mean), (running_variance, variance * batch / max(batch - 1, 1))):
                    running.value = self._moved(running.value, jax.lax.stop_gradient(new))
        else:
            mean, variance = running_mean.value, running_variance.value
        return ((x - mean) * jax.lax.rsqrt(variance + self.epsilon) * scale + bias).astype(self.dtype)

    def _moved(self, running: jax.Array, new: jax.Array) -> jax.Array:
        keep = 1 - self.momentum
        if not self.shared:
            return (keep * running + self.momentum * new).astype(running.dtype)
        # Closed form of one update per block: the last block has the largest weight.
        blocks = len(new)
        weights = self.momentum * keep ** np.arange(blocks - 1, -1, -1)
        return (keep**blocks * running + (weights[:, None] * new).sum(0)).astype(running.dtype)


class _SpectralDense(nn.Module):
    """Multiplies each block by its own matrix, divided by an estimate of the matrix's largest singular value.

    The estimate is that of torch.nn.utils.spectral_norm. Blocks [batch, blocks, inputs] become
    [batch, blocks, features]; the parameter "kernel" is [blocks, inputs, features]. The statistics "u"
    [blocks, features] and "v" [blocks, inputs] estimate the singular vectors. They start at random, and each training
    step improves them by one power iteration, so the estimate of an untrained model is noise, as in PyTorch.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        blocks, inputs = x.shape[1:]
        kernel = self.param("kernel", _madono_block_kernels, (blocks, inputs, self.features), jnp.float32)
        left = self.variable("statistics", "u", self._random_directions, (blocks, self.features))
        right = self.variable("statistics", "v", self._random_directions, (blocks, inputs))
        u, v = left.value, right.value
        if train and not self.is_initializing():
            constant = jax.lax.stop_gradient(kernel)
            v = _unit(jnp.einsum("nif,nf->ni", constant, u, precision="highest"))
            u = _unit(jnp.einsum("nif,ni->nf", constant, v, precision="highest"))
            left.value, right.value = u.astype(left.value.dtype), v.astype(right.value.dtype)
        sigma = jnp.einsum("nif,ni,nf->n", kernel, v, u, precision="highest")
        normalized = kernel / sigma[:, None, None]
        return jnp.einsum("bni,nif->bnf", x.astype(self.dtype), normalized.astype(self.dtype))

    def _random_directions(self, shape: tuple[int, int]) -> jax.Array:
        return _unit(jax.random.normal(self.make_rng("params"), shape, jnp.float32))


def _unit(vectors: jax.Array) -> jax.Array:
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _split(images: jax.Array) -> jax.Array:
    """Splits [batch, size, size, 3] into row-major blocks [batch, N, 48] in (row, column, channel) order."""
    chex.assert_shape(images, (None, images.shape[-2], None, 3))
    chex.assert_is_divisible(images.shape[-2], BLOCK)
    batch, height, width, channels = images.shape
    grid = images.reshape(batch, height // BLOCK, BLOCK, width // BLOCK, BLOCK, channels)
    return grid.swapaxes(2, 3).reshape(batch, -1, BLOCK**2 * channels)


def _pixel_shuffle(blocks: jax.Array) -> jax.Array:
    """Unfolds blocks [batch, N, channels * 16] in (channel, row, column) order to [batch, size, size, channels]."""
    batch, count, features = blocks.shape
    side, channels = math.isqrt(count), features // BLOCK**2
    grid = blocks.reshape(batch, side, side, channels, BLOCK, BLOCK)
    return grid.transpose(0, 1, 4, 2, 5, 3).reshape(batch, side * BLOCK, side * BLOCK, channels)
