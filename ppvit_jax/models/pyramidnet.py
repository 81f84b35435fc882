"""PyramidNet with ShakeDrop: Han et al. (arXiv 1610.02915) and Yamada et al. (arXiv 1802.02375).

From public code (the folder `archive` of Madono's repository) we took the layers and widths, the stem after the
adaptation network, the shortcut, the drop probabilities, one gate per layer and batch with multipliers per sample, and
all initial distributions.
"""

import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ppvit_jax.errors import UserError
from ppvit_jax.models.adaptation_network import ELEAdaptNet, LEAdaptNet, TanakaAdaptNet
from ppvit_jax.models.family import Family
from ppvit_jax.models.layers import BatchNorm, pytorch_bias_init, pytorch_kernel_init
from ppvit_jax.models.model import Model, from_linen

ADAPTATION_NETWORKS = ("none", "le", "le-tanaka", "ele")
_he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PyramidNetConfig:
    """Shape of a PyramidNet with ShakeDrop.

    Attributes:
      depth: number of convolutions and the head, 6n + 2.
      alpha: growth of the width, from 16, over the 3n blocks.
      image_size: side of an image in pixels.
      num_classes: outputs of the head.
      adaptation_network: network before the stem: "none", "le" or "ele" (Madono's), or "le-tanaka" (Tanaka's).
      penalty_weight: weight of L_U, a penalty of "ele".
      smoothness_weight: weight of L_s, a penalty of "ele".
      final_drop: drop probability of the last block.
      dtype: compute dtype; the parameters keep theirs.
    """

    depth: int = 110
    alpha: int = 270
    image_size: int
    num_classes: int
    adaptation_network: str = "none"
    penalty_weight: float = 1e-3
    smoothness_weight: float = 0.1
    final_drop: float = 0.5
    dtype: str = "float32"

    @property
    def patch_size(self) -> int:
        """Always 0: a convolutional network has no patches."""
        return 0

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each block's output: 16 + ceil(alpha / 3n * (i + 1)), computed exactly, for i from 0."""
        blocks = (self.depth - 2) // 2
        return tuple(16 - (-self.alpha * (i + 1) // blocks) for i in range(blocks))


def build(config: PyramidNetConfig) -> Model:
    """Builds a PyramidNet.

    Raises:
      UserError: the depth, the image size or the adaptation network is not possible.
    """
    if config.depth < 8 or config.depth % 6 != 2:
        raise UserError(f"a PyramidNet cannot have depth {config.depth}: use 6n + 2, such as 20 or 110")
    if config.image_size < 4 or config.image_size % 4:
        raise UserError(f"a PyramidNet cannot have image size {config.image_size}: use a multiple of 4")
    if config.adaptation_network not in ADAPTATION_NETWORKS:
        raise UserError(
            f"unknown adaptation network {config.adaptation_network!r}: use one of {', '.join(ADAPTATION_NETWORKS)}"
        )
    return from_linen(config, _PyramidNet(config), (config.image_size, config.image_size, 3))


def shake_drop(branch: jax.Array, rng: jax.Array, survival: float) -> jax.Array:
    """Applies ShakeDrop in training: scales a residual branch forward and, by other factors, backward.

    One gate is drawn for the whole batch. If it is on, the branch is unchanged. Otherwise each sample is multiplied by
    a number from U(-1, 1), and its gradient by another from U(0, 1).

    Args:
      branch: [batch, height, width, channels], floating point.
      rng: key from which the gate and the multipliers are drawn.
      survival: probability that the gate is on.

    Returns:
      An array of the shape and dtype of `branch`.
    """
    chex.assert_rank(branch, 4)
    chex.assert_type(branch, float)
    gate_rng, forward_rng, backward_rng = jax.random.split(rng, 3)
    shape = (len(branch),) + (1,) * (branch.ndim - 1)
    gate = jax.random.bernoulli(gate_rng, jnp.float32(survival))
    forward = jax.random.uniform(forward_rng, shape, jnp.float32, -1.0, 1.0)
    backward = jax.random.uniform(backward_rng, shape, jnp.float32)
    forward, backward = (jnp.where(gate, 1, multiplier).astype(branch.dtype) for multiplier in (forward, backward))
    return _scale(branch, forward, backward)


@jax.custom_vjp
def _scale(x: jax.Array, forward: jax.Array, backward: jax.Array) -> jax.Array:
    del backward
    return x * forward


def _scale_forward(x: jax.Array, forward: jax.Array, backward: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x * forward, backward


def _scale_backward(backward: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    return gradient * backward, jnp.zeros_like(backward), jnp.zeros_like(backward)


_scale.defvjp(_scale_forward, _scale_backward)


def _convolution(
    width: int, stride: int, dtype: DTypeLike, name: str, bias_init: nn.initializers.Initializer | None = None
) -> nn.Conv:
    # Padding is explicit because "SAME" with stride 2 pads only one side, and PyTorch pads both.
    return nn.Conv(
        width,
        (3, 3),
        strides=stride,
        padding=((1, 1), (1, 1)),
        use_bias=bias_init is not None,
        dtype=dtype,
        kernel_init=_he_normal,
        bias_init=bias_init or nn.initializers.zeros,
        name=name,
    )


def _halve(x: jax.Array) -> jax.Array:
    """Averages squares of 2x2 pixels: [batch, height, width, channels], with an even height and width.

    It adds slices because the fusion of `nn.avg_pool` ends the process with a segmentation fault: on CPUs with jaxlib
    0.10.2, in float64, evaluating two or more images of 32x32 under jit.
    """
    even, odd = x[:, ::2], x[:, 1::2]
    return (even[:, :, ::2] + even[:, :, 1::2] + odd[:, :, ::2] + odd[:, :, 1::2]) / 4


class _Block(nn.Module):
    width: int
    stride: int
    survival: float
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        branch = BatchNorm(dtype=self.dtype, name="norm_0")(x, train)
        branch = _convolution(self.width, self.stride, self.dtype, "conv_0")(branch)
        branch = nn.relu(BatchNorm(dtype=self.dtype, name="norm_1")(branch, train))
        branch = _convolution(self.width, 1, self.dtype, "conv_1")(branch)
        branch = BatchNorm(dtype=self.dtype, name="norm_2")(branch, train)
        branch = shake_drop(branch, self.make_rng("random"), self.survival) if train else branch * self.survival
        if self.stride == 2:
            x = _halve(x)
        return branch + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.width - x.shape[-1])))


class _PyramidNet(nn.Module):
    config: PyramidNetConfig

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        config = self.config
        dtype = jnp.dtype(config.dtype)
        x = images.astype(dtype)
        if config.adaptation_network == "le":
            x = LEAdaptNet(dtype, name="adaptation")(x, train)
        elif config.adaptation_network == "le-tanaka":
            x = TanakaAdaptNet(dtype, name="adaptation")(x, train)
        elif config.adaptation_network == "ele":
            x = ELEAdaptNet(config.penalty_weight, config.smoothness_weight, dtype, name="adaptation")(x, train)

        x = _convolution(16, 1, dtype, "stem", pytorch_bias_init(9 * x.shape[-1]))(x)
        x = BatchNorm(dtype=dtype, name="stem_norm")(x, train)
        blocks = len(config.widths)
        for i, width in enumerate(config.widths):
            stride = 2 if i in (blocks // 3, 2 * blocks // 3) else 1
            survival = 1 - config.final_drop * (i + 1) / blocks
            x = _Block(width, stride, survival, dtype, name=f"block_{i}")(x, train)
        x = nn.relu(BatchNorm(dtype=dtype, name="final_norm")(x, train)).mean((1, 2))
        logits = nn.Dense(config.num_classes, dtype=dtype, kernel_init=pytorch_kernel_init, name="head")(x)
        return logits.astype(jnp.promote_types(dtype, jnp.float32))


FAMILY = Family(
    title="PyramidNet",
    names="PyramidNet-DEPTH/ALPHA",
    pattern=r"PyramidNet-(?P<depth>\d+)/(?P<alpha>\d+)",
    config=PyramidNetConfig,
    build=build,
    name=lambda config: f"PyramidNet-{config.depth}/{config.alpha}",
    # One of ADAPTATION_NETWORKS.
    options={"adaptation_network": "none"},
    limits="its convolutions reach across the borders of blocks",
    landmarks=("final_norm/scale", "block_0/conv_0/kernel"),
)
