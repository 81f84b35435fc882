"""Vision Transformer of Dosovitskiy et al. (arXiv 2010.11929), with Google's parameter names.

The parameter tree has exactly the keys of the published `.npz` files, so that loading a checkpoint is unflattening it.
The names are those of Flax before Linen: `LayerNorm_0`, `MultiHeadDotProductAttention_1`, `LayerNorm_2`, `MlpBlock_3`.
Reference implementation: google-research/vision_transformer.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ppvit_jax.errors import UserError
from ppvit_jax.models import products
from ppvit_jax.models.family import Family, Stored
from ppvit_jax.models.model import Model, from_linen
from ppvit_jax.models.target import Target, default_target
from ppvit_jax.models.vit_config import ACTIVATION, EPSILON, SIZES, ViTConfig, check_options, parse_name


def infer_config(stored: Stored) -> ViTConfig:
    """Infers the shape from a checkpoint's arrays; `num_classes` is 0 for a checkpoint without a head.

    Raises:
      UserError: an array that determines the shape is missing or has another rank, or a recorded option is impossible.
    """

    def shape(name: str, rank: int) -> tuple[int, ...]:
        return stored.shape(name, rank, "Vision Transformer in Google's layout")

    arrays = stored.arrays
    patch_size, _, _, hidden_size = shape(FAMILY.patch_kernel, 4)
    blocks = shape(FAMILY.positions, 3)[1] - FAMILY.prefix_tokens
    first = "Transformer/encoderblock_0"
    recorded = {name: stored.options.get(name, FAMILY.options[name]) for name in FAMILY.recorded}
    check_options(recorded["activation"], recorded["epsilon"], f"{stored.where} records")
    return ViTConfig(
        patch_size=patch_size,
        hidden_size=hidden_size,
        layers=stored.count(r"Transformer/encoderblock_(\d+)/"),
        heads=shape(f"{first}/MultiHeadDotProductAttention_1/query/kernel", 3)[1],
        mlp_size=shape(f"{first}/MlpBlock_3/Dense_0/kernel", 2)[1],
        image_size=math.isqrt(max(blocks, 0)) * patch_size,
        num_classes=shape("head/kernel", 2)[1] if "head/kernel" in arrays else 0,
        representation_size=shape("pre_logits/kernel", 2)[1] if "pre_logits/kernel" in arrays else None,
        dtype=stored.dtype,
        activation=str(recorded["activation"]),
        epsilon=float(recorded["epsilon"]),
    )


def _name(config: ViTConfig) -> str:
    shape = (config.hidden_size, config.layers, config.heads, config.mlp_size)
    return next((f"ViT-{name}/{config.patch_size}" for name, size in SIZES.items() if size == shape), "")


def build(config: ViTConfig) -> Model:
    """Builds a Vision Transformer.

    Raises:
      UserError: the attention is unknown, or it does not support the device or the compute dtype.
    """
    target = config.target or default_target()
    if config.attention not in ("xla", "cudnn"):
        raise UserError(f"unknown attention {config.attention!r}: use xla or cudnn")
    if config.attention == "cudnn" and (target.platform, config.dtype) != ("gpu", "bfloat16"):
        raise UserError(
            f"attention cudnn needs a CUDA GPU and dtype bfloat16, not {target.platform} and {config.dtype}: use xla"
        )
    return from_linen(config, _VisionTransformer(config, target), (config.image_size, config.image_size, 3))


class _Dense(nn.Module):
    """Dense layer over the last `axes` axes, with the parameters and initialization of Flax's DenseGeneral."""

    features: tuple[int, ...]
    dtype: str
    target: Target
    axes: int = 1
    kernel_init: Any = nn.initializers.lecun_normal()
    bias_init: Any = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, inputs = x.shape[: x.ndim - self.axes], x.shape[x.ndim - self.axes :]
        flat = math.prod(inputs), math.prod(self.features)
        kernel = self.param(
            "kernel", lambda rng: self.kernel_init(rng, flat, jnp.float32).reshape(*inputs, *self.features)
        )
        bias = self.param("bias", self.bias_init, self.features)
        y = products.dense(x.reshape(*batch, flat[0]), kernel.reshape(flat), self.dtype, self.target)
        return (y + bias.reshape(-1).astype(y.dtype)).reshape(*batch, *self.features)


# The tanh form is that of Google's models. "gelu" is x times the normal distribution's cumulative function at x, and
# "quick_gelu" its approximation by a sigmoid: section 2 of arXiv 1606.08415.
_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_tanh": lambda x: nn.gelu(x, approximate=True),
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
}


class _MlpBlock(nn.Module):
    config: ViTConfig
    target: Target

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = functools.partial(
            _Dense, kernel_init=nn.initializers.xavier_uniform(), bias_init=nn.initializers.normal(stddev=1e-6)
        )
        size, dtype = self.config.mlp_size, self.config.dtype
        hidden = _ACTIVATIONS[self.config.activation](dense((size,), dtype, self.target, name="Dense_0")(x))
        return dense((x.shape[-1],), dtype, self.target, name="Dense_1")(hidden)


class _Attention(nn.Module):
    config: ViTConfig
    target: Target

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        heads, width, dtype = self.config.heads, x.shape[-1], self.config.dtype
        init = nn.initializers.xavier_uniform()
        query, key, value = (
            _Dense((heads, width // heads), dtype, self.target, kernel_init=init, name=name)(x)
            for name in ("query", "key", "value")
        )
        y = products.attention(query, key, value, dtype, self.config.attention, self.target)
        return _Dense((width,), dtype, self.target, axes=2, kernel_init=init, name="out")(y)


def _layer_norm(config: ViTConfig, target: Target, name: str) -> nn.LayerNorm:
    dtype = products.activation_dtype(config.dtype, target)
    return nn.LayerNorm(epsilon=config.epsilon, dtype=dtype, use_fast_variance=False, name=name)


class _EncoderBlock(nn.Module):
    config: ViTConfig
    target: Target

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = _layer_norm(self.config, self.target, "LayerNorm_0")(x)
        x = x + _Attention(self.config, self.target, name="MultiHeadDotProductAttention_1")(y)
        y = _layer_norm(self.config, self.target, "LayerNorm_2")(x)
        return x + _MlpBlock(self.config, self.target, name="MlpBlock_3")(y)


class _PositionEmbedding(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        embedding = self.param("pos_embedding", nn.initializers.normal(stddev=0.02), (1, *x.shape[1:]))
        return x + embedding.astype(x.dtype)


class _Encoder(nn.Module):
    config: ViTConfig
    target: Target

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = _PositionEmbedding(name="posembed_input")(x)
        for layer in range(self.config.layers):
            x = _EncoderBlock(self.config, self.target, name=f"encoderblock_{layer}")(x)
        return _layer_norm(self.config, self.target, "encoder_norm")(x)


class _VisionTransformer(nn.Module):
    config: ViTConfig
    target: Target

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        config = self.config
        batch, height, width, channels = images.shape
        patch = config.patch_size
        # A convolution whose stride is its size: one matrix product over (row, column, channel) of each patch.
        patches = images.reshape(batch, height // patch, patch, width // patch, patch, channels)
        patches = patches.swapaxes(2, 3).reshape(batch, -1, patch, patch, channels)
        x = _Dense((config.hidden_size,), config.dtype, self.target, axes=3, name="embedding")(patches)
        class_token = self.param("cls", nn.initializers.zeros, (1, 1, config.hidden_size))
        x = jnp.concatenate([jnp.tile(class_token.astype(x.dtype), (batch, 1, 1)), x], axis=1)
        x = _Encoder(config, self.target, name="Transformer")(x)[:, 0]

        if config.representation_size is not None:
            x = nn.tanh(_Dense((config.representation_size,), config.dtype, self.target, name="pre_logits")(x))
        logits = _Dense(
            (config.num_classes,), config.dtype, self.target, kernel_init=nn.initializers.zeros, name="head"
        )(x)
        return logits.astype(jnp.promote_types(config.dtype, jnp.float32))


def _describe(config: ViTConfig) -> dict[str, str]:
    return {
        "shape": f"hidden {config.hidden_size}, {config.layers} layers, {config.heads} heads, MLP {config.mlp_size}",
        "pre_logits": str(config.representation_size or "none"),
        "activation": f"{config.activation}, epsilon {config.epsilon:g}",
    }


FAMILY = Family(
    title="Vision Transformer",
    names="ViT-SIZE/PATCH",
    pattern=r"ViT(?![A-Za-z])(?s:.*)",
    config=ViTConfig,
    build=build,
    # "xla"; or "cudnn" on a CUDA device in bfloat16. One of ACTIVATIONS, and the epsilon of the layer normalizations.
    options={"attention": "xla", "activation": ACTIVATION, "epsilon": EPSILON},
    recorded=("activation", "epsilon"),
    parse=parse_name,
    name=_name,
    infer=infer_config,
    describe=_describe,
    patch_kernel="embedding/kernel",
    patch_bias="embedding/bias",
    positions="Transformer/posembed_input/pos_embedding",
    # The class token.
    prefix_tokens=1,
    head="head",
    optional=("pre_logits",),
    landmarks=("cls",),
    encoder="Transformer",
    encoder_outputs=("/out/kernel", "/Dense_1/kernel"),
)
