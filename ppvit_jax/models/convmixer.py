"""ConvMixer of Trockman and Kolter (arXiv 2201.09792), with an optional adaptive matrix over its patches.

The network is that of the paper's listing. The adaptive matrix is a *reconstruction* of the adaptive permutation
matrix of arXiv 2208.02556, of which we know the outline and no public code: where it multiplies, its normalization,
its initialization and its penalty are choices of this project.
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

ADAPTIVE_MATRICES = ("none", "free", "softmax", "sinkhorn")
_SINKHORN_ROUNDS = 20


@dataclasses.dataclass(frozen=True)
class ConvMixerConfig:
    """The shape of a ConvMixer: ConvMixer-256/8 has `hidden_size` 256 and `depth` 8.

    patch_size: side of a patch in pixels.
    kernel_size: side of the depthwise convolutions in patches.
    adaptive_matrix: one of ADAPTIVE_MATRICES. Other than "none", a learned matrix over the patches: the parameter
      itself ("free"), its rows under a softmax ("softmax"), or made nearly doubly stochastic ("sinkhorn").
    penalty_weight: of the adaptive matrix's penalty in the loss.
    dtype: the compute dtype; the parameters keep theirs.
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

    @property
    def grid_size(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size


def build(config: ConvMixerConfig) -> Model:
    """Returns the functions of a ConvMixer.

    Parameters: "embedding" (kernel [patch_size, patch_size, 3, hidden_size]), "embedding_norm", "block_0" and so on
    with "depthwise", "depthwise_norm", "pointwise" and "pointwise_norm", and "head"; with an adaptive matrix also
    "adaptive_matrix" [grid_size**2, grid_size**2].

    Raises:
      UserError: an unknown adaptive matrix, no kernel, or an image size that is not a multiple of the patch size.
    """
    if config.adaptive_matrix not in ADAPTIVE_MATRICES:
        raise UserError(f"adaptive matrix {config.adaptive_matrix!r}: use one of {', '.join(ADAPTIVE_MATRICES)}")
    if config.kernel_size < 1:
        raise UserError(f"kernel size {config.kernel_size} of the ConvMixer: give at least 1")
    if config.image_size < 1 or config.patch_size < 1 or config.image_size % config.patch_size:
        raise UserError(
            f"image size {config.image_size} is not a multiple of the patch size {config.patch_size} of the ConvMixer"
        )
    return from_linen(config, _ConvMixer(config), (config.image_size, config.image_size, 3))


def _sinkhorn_round(logarithms: jax.Array, _: None) -> tuple[jax.Array, None]:
    """Normalizes the rows, then the columns, of a matrix given by its entries' logarithms."""
    return jax.nn.log_softmax(jax.nn.log_softmax(logarithms, axis=1), axis=0), None


def _effective(parameter: jax.Array, kind: str) -> jax.Array:
    """Returns the matrix that multiplies the patches, from its parameter; both [patches, patches]."""
    if kind == "softmax":
        return jax.nn.softmax(parameter, axis=1)
    if kind == "sinkhorn":
        return jnp.exp(jax.lax.scan(_sinkhorn_round, parameter, length=_SINKHORN_ROUNDS)[0])
    return parameter


class _DepthwiseConvolution(nn.Module):
    """A convolution of every channel by itself, "SAME" padding; "kernel" [size, size, 1, channels], "bias"."""

    size: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, (height, width, channels) = self.size, x.shape[1:]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (size, size, 1, channels), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        x, kernel, bias = (array.astype(self.dtype) for array in (x, kernel, bias))
        if jax.default_backend() != "cpu":
            dimensions = ("NHWC", "HWIO", "NHWC")
            return bias + jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=dimensions, feature_group_count=channels
            )
        # XLA's grouped convolution on a CPU takes four times as long as a sum of shifted products.
        before = (size - 1) // 2
        sides = (before, size - 1 - before)
        padded = jnp.pad(x, ((0, 0), sides, sides, (0, 0)))
        places = [(row, column) for row in range(size) for column in range(size)]
        return sum((padded[:, r : r + height, c : c + width] * kernel[r, c, 0] for r, c in places), bias)


class _Block(nn.Module):
    kernel_size: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width = x.shape[-1]
        y = nn.gelu(_DepthwiseConvolution(self.kernel_size, self.dtype, name="depthwise")(x), approximate=False)
        x = x + BatchNorm(dtype=self.dtype, name="depthwise_norm")(y, train)
        x = nn.gelu(nn.Dense(width, dtype=self.dtype, name="pointwise")(x), approximate=False)
        return BatchNorm(dtype=self.dtype, name="pointwise_norm")(x, train)


class _ConvMixer(nn.Module):
    config: ConvMixerConfig

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        config = self.config
        dtype = jnp.dtype(config.dtype)
        batch, _, _, channels = images.shape
        patch, grid = config.patch_size, config.grid_size
        # One matrix product over (row, column, channel) of each patch: a convolution whose stride is its size.
        patches = images.reshape(batch, grid, patch, grid, patch, channels)
        patches = patches.swapaxes(2, 3).reshape(batch, grid**2, patch, patch, channels)
        x = nn.DenseGeneral(config.hidden_size, axis=(-3, -2, -1), dtype=dtype, name="embedding")(patches)

        if config.adaptive_matrix != "none":
            parameter = self.param("adaptive_matrix", pytorch_kernel_init, (grid**2, grid**2), jnp.float32)
            precise = parameter.astype(jnp.promote_types(dtype, jnp.float32))
            matrix = _effective(precise, config.adaptive_matrix)
            if train:
                self.sow("penalties", "adaptive_matrix", config.penalty_weight * permutation_penalty(matrix))
            x = jnp.einsum("ij,bjd->bid", matrix.astype(dtype), x)

        x = nn.gelu(x.reshape(batch, grid, grid, config.hidden_size), approximate=False)
        x = BatchNorm(dtype=dtype, name="embedding_norm")(x, train)
        for i in range(config.depth):
            x = _Block(config.kernel_size, dtype, name=f"block_{i}")(x, train)
        logits = nn.Dense(config.num_classes, dtype=dtype, name="head")(x.mean((1, 2)))
        return logits.astype(jnp.promote_types(dtype, jnp.float32))


def infer_config(stored: Stored) -> ConvMixerConfig:
    """Reads the shape off a checkpoint's arrays, and off its metadata what they do not tell.

    Those are the kind of the adaptive matrix, and without a matrix the images' size. `num_classes` is 0 for a
    checkpoint without a head.

    Raises:
      UserError: an array is missing or of another rank, or the metadata lacks what is needed.
    """

    def shape(name: str, rank: int) -> tuple[int, ...]:
        return stored.shape(name, rank, "ConvMixer")

    patch_size, _, _, hidden_size = shape(FAMILY.patch_kernel, 4)
    image_size, kind = stored.image_size, "none"
    if FAMILY.mixing_matrix in stored.arrays:
        image_size = math.isqrt(shape(FAMILY.mixing_matrix, 2)[1]) * patch_size
        kind = stored.options.get("adaptive_matrix")
        if kind not in ADAPTIVE_MATRICES[1:]:
            raise UserError(
                f"{stored.where} does not say the kind of its adaptive matrix, {', '.join(ADAPTIVE_MATRICES[1:])}: "
                "load it in a run with its config.model_options.adaptive_matrix, whose checkpoint says it"
            )
    if not image_size:
        raise UserError(
            f"{stored.where} does not say the size of its images: load it in a run with its config.image_size, "
            "whose checkpoint says it"
        )
    return ConvMixerConfig(
        hidden_size=hidden_size,
        depth=stored.count(r"block_(\d+)/"),
        patch_size=patch_size,
        kernel_size=shape("block_0/depthwise/kernel", 4)[0],
        image_size=image_size,
        num_classes=shape("head/kernel", 2)[1] if "head/kernel" in stored.arrays else 0,
        adaptive_matrix=kind,
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
    # Sides of a patch in pixels and of the convolutions in patches; one of ADAPTIVE_MATRICES.
    options={"patch_size": 2, "kernel_size": 5, "adaptive_matrix": "none"},
    recorded=("adaptive_matrix",),
    infer=infer_config,
    describe=_describe,
    patch_kernel="embedding/kernel",
    patch_bias="embedding/bias",
    mixing_matrix="adaptive_matrix",
    head="head",
    landmarks=("embedding_norm/scale",),
)
