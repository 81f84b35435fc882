"""Vision Transformer of Dosovitskiy et al. (arXiv 2010.11929), with Google's parameter names.

The parameter tree has exactly the keys of the published `.npz` files, so that loading a checkpoint is unflattening it.
The names are those of Flax before Linen: `LayerNorm_0`, `MultiHeadDotProductAttention_1`, `LayerNorm_2`, `MlpBlock_3`.
Reference implementation: google-research/vision_transformer.
"""

import dataclasses
import functools
import math
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ppvit_jax.errors import UserError
from ppvit_jax.models import products
from ppvit_jax.models.family import Family, Stored
from ppvit_jax.models.model import Model, from_linen

# Hidden size, layers, heads and MLP size: table 1 of arXiv 2010.11929. Ti and S are those of arXiv 2106.10270; Micro is
# the shape of the small checkpoint in this package.
SIZES = {
    "Micro": (128, 6, 4, 512),
    "Ti": (192, 12, 3, 768),
    "S": (384, 12, 6, 1536),
    "B": (768, 12, 12, 3072),
    "L": (1024, 24, 16, 4096),
    "H": (1280, 32, 16, 5120),
}


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """Shape of a Vision Transformer.

    Attributes:
      patch_size: side of a patch in pixels.
      hidden_size: features of a token.
      layers: number of encoder blocks.
      heads: attention heads of a block.
      mlp_size: hidden units of a block's MLP.
      image_size: side of an image in pixels.
      num_classes: outputs of the head.
      representation_size: width of the `pre_logits` layer (a dense layer and tanh between the class token and the
        head), or None for a model without this layer.
      dtype: compute dtype; the parameters keep theirs.
      attention: implementation of attention; see `ppvit_jax.models.products.attention`.
    """

    patch_size: int
    hidden_size: int
    layers: int
    heads: int
    mlp_size: int
    image_size: int
    num_classes: int
    representation_size: int | None = None
    dtype: str = "float32"
    attention: str = "xla"

    @property
    def grid_size(self) -> int:
        """Number of patches along one side of the image."""
        return self.image_size // self.patch_size


def parse_name(
    name: str,
    *,
    image_size: int,
    num_classes: int,
    representation_size: int | None = None,
    dtype: str = "float32",
    attention: str = "xla",
) -> ViTConfig:
    """Reads a model name such as `ViT-B/16` (or `ViT-B_16`, as the published files are named).

    Args:
      name: size and patch size of the model.
      image_size, num_classes, representation_size, dtype, attention: see `ViTConfig`.

    Raises:
      UserError: the name is unknown, or the image size is not a multiple of the patch size.
    """
    match = re.fullmatch(r"ViT-([A-Za-z]+)[/_](\d+)", name)
    if match is None or match[1] not in SIZES or int(match[2]) == 0:
        raise UserError(
            f"unknown model {name!r}: use ViT-SIZE/PATCH with SIZE one of {', '.join(SIZES)}, for example ViT-B/16"
        )
    patch_size = int(match[2])
    if image_size <= 0 or image_size % patch_size:
        below = max(image_size // patch_size, 1) * patch_size
        raise UserError(
            f"image size {image_size} is not a multiple of the patch size {patch_size} of {name}: "
            f"use, for example, {below} or {below + patch_size}"
        )
    hidden_size, layers, heads, mlp_size = SIZES[match[1]]
    return ViTConfig(
        patch_size=patch_size,
        hidden_size=hidden_size,
        layers=layers,
        heads=heads,
        mlp_size=mlp_size,
        image_size=image_size,
        num_classes=num_classes,
        representation_size=representation_size,
        dtype=dtype,
        attention=attention,
    )


def infer_config(stored: Stored) -> ViTConfig:
    """Infers the shape from a checkpoint's arrays; `num_classes` is 0 for a checkpoint without a head.

    Raises:
      UserError: an array that determines the shape is missing or has another rank.
    """

    def shape(name: str, rank: int) -> tuple[int, ...]:
        return stored.shape(name, rank, "Vision Transformer in Google's layout")

    arrays = stored.arrays
    patch_size, _, _, hidden_size = shape(FAMILY.patch_kernel, 4)
    blocks = shape(FAMILY.positions, 3)[1] - FAMILY.prefix_tokens
    first = "Transformer/encoderblock_0"
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
    )


def _name(config: ViTConfig) -> str:
    shape = (config.hidden_size, config.layers, config.heads, config.mlp_size)
    return next((f"ViT-{name}/{config.patch_size}" for name, size in SIZES.items() if size == shape), "")


def build(config: ViTConfig) -> Model:
    """Builds a Vision Transformer.

    Raises:
      UserError: the attention is unknown, or it does not support the device or the compute dtype.
    """
    if config.attention not in ("xla", "cudnn"):
        raise UserError(f"unknown attention {config.attention!r}: use xla or cudnn")
    here = jax.default_backend() if config.attention == "cudnn" else ""
    if here and (here, config.dtype) != ("gpu", "bfloat16"):
        raise UserError(f"attention cudnn needs a CUDA GPU and dtype bfloat16, not {here} and {config.dtype}: use xla")
    return from_linen(config, _VisionTransformer(config), (config.image_size, config.image_size, 3))


class _Dense(nn.Module):
    """Dense layer over the last `axes` axes, with the parameters and initialization of Flax's DenseGeneral."""

    features: tuple[int, ...]
    dtype: str
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
        y = products.dense(x.reshape(*batch, flat[0]), kernel.reshape(flat), self.dtype)
        return (y + bias.reshape(-1).astype(y.dtype)).reshape(*batch, *self.features)


class _MlpBlock(nn.Module):
    size: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = functools.partial(
            _Dense, kernel_init=nn.initializers.xavier_uniform(), bias_init=nn.initializers.normal(stddev=1e-6)
        )
        hidden = nn.gelu(dense((self.size,), self.dtype, name="Dense_0")(x), approximate=True)
        return dense((x.shape[-1],), self.dtype, name="Dense_1")(hidden)


class _Attention(nn.Module):
    config: ViTConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        heads, width, dtype = self.config.heads, x.shape[-1], self.config.dtype
        init = nn.initializers.xavier_uniform()
        query, key, value = (
            _Dense((heads, width // heads), dtype, kernel_init=init, name=name)(x) for name in ("query", "key", "value")
        )
        y = products.attention(query, key, value, dtype, self.config.attention)
        return _Dense((width,), dtype, axes=2, kernel_init=init, name="out")(y)


def _layer_norm(config: ViTConfig, name: str) -> nn.LayerNorm:
    dtype = products.activation_dtype(config.dtype)
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype, use_fast_variance=False, name=name)


class _EncoderBlock(nn.Module):
    config: ViTConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = _layer_norm(self.config, "LayerNorm_0")(x)
        x = x + _Attention(self.config, name="MultiHeadDotProductAttention_1")(y)
        y = _layer_norm(self.config, "LayerNorm_2")(x)
        return x + _MlpBlock(self.config.mlp_size, self.config.dtype, name="MlpBlock_3")(y)


class _PositionEmbedding(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        embedding = self.param("pos_embedding", nn.initializers.normal(stddev=0.02), (1, *x.shape[1:]))
        return x + embedding.astype(x.dtype)


class _Encoder(nn.Module):
    config: ViTConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = _PositionEmbedding(name="posembed_input")(x)
        for layer in range(self.config.layers):
            x = _EncoderBlock(self.config, name=f"encoderblock_{layer}")(x)
        return _layer_norm(self.config, "encoder_norm")(x)


class _VisionTransformer(nn.Module):
    config: ViTConfig

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        config = self.config
        batch, height, width, channels = images.shape
        patch = config.patch_size
        # A convolution whose stride is its size: one matrix product over (row, column, channel) of each patch.
        patches = images.reshape(batch, height // patch, patch, width // patch, patch, channels)
        patches = patches.swapaxes(2, 3).reshape(batch, -1, patch, patch, channels)
        x = _Dense((config.hidden_size,), config.dtype, axes=3, name="embedding")(patches)
        class_token = self.param("cls", nn.initializers.zeros, (1, 1, config.hidden_size))
        x = jnp.concatenate([jnp.tile(class_token.astype(x.dtype), (batch, 1, 1)), x], axis=1)
        x = _Encoder(config, name="Transformer")(x)[:, 0]

        if config.representation_size is not None:
            x = nn.tanh(_Dense((config.representation_size,), config.dtype, name="pre_logits")(x))
        logits = _Dense((config.num_classes,), config.dtype, kernel_init=nn.initializers.zeros, name="head")(x)
        return logits.astype(jnp.promote_types(config.dtype, jnp.float32))


def _describe(config: ViTConfig) -> dict[str, str]:
    return {
        "shape": f"hidden {config.hidden_size}, {config.layers} layers, {config.heads} heads, MLP {config.mlp_size}",
        "pre_logits": str(config.representation_size or "none"),
    }


FAMILY = Family(
    title="Vision Transformer",
    names="ViT-SIZE/PATCH",
    pattern=r"ViT(?![A-Za-z])(?s:.*)",
    config=ViTConfig,
    build=build,
    # "xla"; or "cudnn" on a CUDA device in bfloat16.
    options={"attention": "xla"},
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
