"""ConvMixer of Trockman and Kolter (arXiv 2201.09792), with an optional adaptive matrix over its patches.

The network is that of the paper's listing. The adaptive matrix is a *reconstruction* of the adaptive permutation
matrix of arXiv 2208.02556. We know an outline of it and no public code, so its place in the network, its normalization,
its initialization and its penalty are our choices.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ppvit_jax.errors import UserError
from ppvit_jax.models.family import Family, Stored
from ppvit_jax.models.layers import BatchNorm, permutation_penalty, pytorch_kernel_init
from ppvit_jax.models.model import Model, from_linen
from ppvit_jax.models.target import Target, default_target

ADAPTIVE_MATRICES = ("none", "free", "softmax", "sinkhorn")
_SINKHORN_ROUNDS = 20


@dataclasses.dataclass(frozen=True)
class ConvMixerConfig:
    """Shape of a ConvMixer.

    Attributes:
      hidden_size: features of a patch; 256 for ConvMixer-256/8.
      depth: number of layers; 8 for ConvMixer-256/8.
      patch_size: side of a patch in pixels.
      kernel_size: side of the depthwise convolutions in patches.
      image_size: side of an image in pixels.
      num_classes: outputs of the head.
      adaptive_matrix: form of a learned matrix that mixes the patches: "none"; "free", the parameter itself; "softmax",
        a softmax over each row of it; or "sinkhorn", the parameter made nearly doubly stochastic.
      penalty_weight: weight in the loss of the adaptive matrix's penalty.
      dtype: compute dtype; the parameters keep theirs.
      target: devices for which the functions are compiled; None for JAX's default devices.
    """

    hidden_size: int
    depth: int
    patch_size: int
    kernel_size: int
    image_size: int
    num_classes: int
    adaptive_matrix: str = "none"
    penalty_weight: float = 1e-3
    dtype: str = "float32"
    target: Target | None = None

    @property
    def grid_size(self) -> int:
        """Number of patches along one side of the image."""
        return self.image_size // self.patch_size


def build(config: ConvMixerConfig) -> Model:
    """Builds a ConvMixer.

    Its parameters are "embedding" (kernel [patch_size, patch_size, 3, hidden_size]), "embedding_norm", "block_0" and so
    on, each with "depthwise", "depthwise_norm", "pointwise" and "pointwise_norm", and "head". With an adaptive matrix
    there is also "adaptive_matrix" [grid_size**2, grid_size**2].

    Raises:
      UserError: the adaptive matrix is unknown, the kernel size is below 1, or the image size is not a multiple of the
        patch size.
    """
    if config.adaptive_matrix not in ADAPTIVE_MATRICES:
        raise UserError(
            f"unknown adaptive matrix {config.adaptive_matrix!r}: use one of {', '.join(ADAPTIVE_MATRICES)}"
        )
    if config.kernel_size < 1:
        raise UserError(f"the ConvMixer's kernel size is {config.kernel_size}: give at least 1")
    if config.image_size < 1 or config.patch_size < 1 or config.image_size % config.patch_size:
        raise UserError(
            f"image size {config.image_size} is not a multiple of the patch size {config.patch_size} of the ConvMixer"
        )
    return from_linen(
        config, _ConvMixer(config, config.target or default_target()), (config.image_size, config.image_size, 3)
    )


def _sinkhorn_round(logarithms: jax.Array, _: None) -> tuple[jax.Array, None]:
    """Normalizes the rows, then the columns, of a matrix in log space."""
    return jax.nn.log_softmax(jax.nn.log_softmax(logarithms, axis=1), axis=0), None


def _mixing_matrix(parameter: jax.Array, form: str) -> jax.Array:
    """Computes the matrix that mixes the patches from its parameter; both are [patches, patches]."""
    if form == "softmax":
        return jax.nn.softmax(parameter, axis=1)
    if form == "sinkhorn":
        return jnp.exp(jax.lax.scan(_sinkhorn_round, parameter, length=_SINKHORN_ROUNDS)[0])
    return parameter


class _DepthwiseConvolution(nn.Module):
    """Depthwise convolution with "SAME" padding: "kernel" [size, size, 1, channels] and "bias" [channels]."""

    size: int
    dtype: Any
    target: Target

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, (height, width, channels) = self.size, x.shape[1:]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (size, size, 1, channels), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        x, kernel, bias = (array.astype(self.dtype) for array in (x, kernel, bias))
        if not self.target.is_cpu:
            dimensions = ("NHWC", "HWIO", "NHWC")
            return bias + jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=dimensions, feature_group_count=channels
            )
        # On a CPU, XLA's grouped convolution takes four times as long as a sum of shifted products.
        before = (size - 1) // 2
        sides = (before, size - 1 - before)
        padded = jnp.pad(x, ((0, 0), sides, sides, (0, 0)))
        places = [(row, column) for row in range(size) for column in range(size)]
        return sum((padded[:, r : r + height, c : c + width] * kernel[r, c, 0] for r, c in places), bias)


class _Block(nn.Module):
    kernel_size: int
    dtype: Any
    target: Target

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width = x.shape[-1]
        y = nn.gelu(
            _DepthwiseConvolution(self.kernel_size, self.dtype, self.target, name="depthwise")(x), approximate=False
        )
        x = x + BatchNorm(dtype=self.dtype, name="depthwise_norm")(y, train)
        x = nn.gelu(nn.Dense(width, dtype=self.dtype, name="pointwise")(x), approximate=False)
        return BatchNorm(dtype=self.dtype, name="pointwise_norm")(x, train)


class _ConvMixer(nn.Module):
    config: ConvMixerConfig
    target: Target

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        config = self.config
        dtype = jnp.dtype(config.dtype)
        batch, _, _, channels = images.shape
        patch, grid = config.patch_size, config.grid_size
        # A convolution whose stride is its size: one matrix product over (row, column, channel) of each patch.
        patches = images.reshape(batch, grid, patch, grid, patch, channels)
        patches = patches.swapaxes(2, 3).reshape(batch, grid**2, patch, patch, channels)
        x = nn.DenseGeneral(config.hidden_size, axis=(-3, -2, -1), dtype=dtype, name="embedding")(patches)

        if config.adaptive_matrix != "none":
            parameter = self.param("adaptive_matrix", pytorch_kernel_init, (grid**2, grid**2), jnp.float32)
            precise = parameter.astype(jnp.promote_types(dtype, jnp.float32))
            matrix = _mixing_matrix(precise, config.adaptive_matrix)
            if train:
                self.sow("penalties", "adaptive_matrix", config.penalty_weight * permutation_penalty(matrix))
            x = jnp.einsum("ij,bjd->bid", matrix.astype(dtype), x)

        x = nn.gelu(x.reshape(batch, grid, grid, config.hidden_size), approximate=False)
        x = BatchNorm(dtype=dtype, name="embedding_norm")(x, train)
        for i in range(config.depth):
            x = _Block(config.kernel_size, dtype, self.target, name=f"block_{i}")(x, train)
        logits = nn.Dense(config.num_classes, dtype=dtype, name="head")(x.mean((1, 2)))
        return logits.astype(jnp.promote_types(dtype, jnp.float32))


def infer_config(stored: Stored) -> ConvMixerConfig:
    """Infers the shape from a checkpoint's arrays and metadata.

    The metadata must record the form of the adaptive matrix, or the image size if there is no matrix. `num_classes` is
    0 for a checkpoint without a head.

    Raises:
      UserError: an array is missing or has another rank, or the metadata lacks a field that is needed.
    """

    def shape(name: str, rank: int) -> tuple[int, ...]:
        return stored.shape(name, rank, "ConvMixer")

    patch_size, _, _, hidden_size = shape(FAMILY.patch_kernel, 4)
    image_size, form = stored.image_size, "none"
    if FAMILY.mixing_matrix in stored.arrays:
        image_size = math.isqrt(shape(FAMILY.mixing_matrix, 2)[1]) * patch_size
        form = stored.options.get("adaptive_matrix")
        if form not in ADAPTIVE_MATRICES[1:]:
            raise UserError(
                f"{stored.where} does not record the form of its adaptive matrix ({', '.join(ADAPTIVE_MATRICES[1:])}): "
                "train from it with config.model_options.adaptive_matrix set; the new checkpoint records the form"
            )
    if not image_size:
        raise UserError(
            f"{stored.where} does not record the size of its images: train from it with config.image_size set; "
            "the new checkpoint records the size"
        )
    return ConvMixerConfig(
        hidden_size=hidden_size,
        depth=stored.count(r"block_(\d+)/"),
        patch_size=patch_size,
        kernel_size=shape("block_0/depthwise/kernel", 4)[0],
        image_size=image_size,
        num_classes=shape("head/kernel", 2)[1] if "head/kernel" in stored.arrays else 0,
        adaptive_matrix=form,
        dtype=stored.dtype,
    )


def _describe(config: ConvMixerConfig) -> dict[str, str]:
    side = config.kernel_size
    return {
        "shape": f"hidden {config.hidden_size}, {config.depth} layers, convolutions of {side}x{side}",
        "adaptive matrix": config.adaptive_matrix,
    }


FAMILY = Family(
    title="ConvMixer",
    names="ConvMixer-WIDTH/DEPTH",
    pattern=r"ConvMixer-(?P<hidden_size>\d+)/(?P<depth>\d+)",
    config=ConvMixerConfig,
    build=build,
    name=lambda config: f"ConvMixer-{config.hidden_size}/{config.depth}",
    # Side of a patch in pixels, side of the convolutions in patches, and one of ADAPTIVE_MATRICES.
    options={"patch_size": 2, "kernel_size": 5, "adaptive_matrix": "none"},
    recorded=("adaptive_matrix",),
    infer=infer_config,
    describe=_describe,
    patch_kernel="embedding/kernel",
    patch_bias="embedding/bias",
    mixing_matrix="adaptive_matrix",
    head="head",
    block="block_",
    stem=("embedding", "embedding_norm", "adaptive_matrix"),
    landmarks=("embedding_norm/scale",),
)
