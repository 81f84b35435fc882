"""Vision Transformers of every family: patch embedding, tokens, encoder, pooling and head.

A family is a subclass of `ViTConfig` with a `Layout` of its own; see `ppvit_jax.models.layout`.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ppvit_jax.errors import UserError
from ppvit_jax.models.activations import activate
from ppvit_jax.models.attention import choose_attention
from ppvit_jax.models.encoder import Dense, Encoder, Layer, LayerNorm
from ppvit_jax.models.family import Family, Stored
from ppvit_jax.models.layer_norm import standardize
from ppvit_jax.models.model import Model, from_linen
from ppvit_jax.models.products import linear, sum_products
from ppvit_jax.models.target import Target, default_target
from ppvit_jax.models.vit_config import Size, ViTConfig, check_options

# Beginning of the names of a block's parameters, and the parameters before the blocks.
BLOCK = "Transformer/encoderblock_"
STEM = (
    *("embedding", "cls", "dist", "registers", "pos_embedding"),
    *(f"Transformer/{layer}" for layer in ("posembed_input", "rotary", "pre_norm")),
)


def build(config: ViTConfig) -> Model:
    """Builds a Vision Transformer of any family.

    Raises:
      UserError: the attention is unknown, or it does not support the device or the compute dtype; or the model lacks
        the token that the pooling takes.
    """
    target, layout = config.target or default_target(), config.layout
    tokens = {"token": layout.class_token, "token_mean": layout.class_token, "distilled": layout.distillation_token}
    if not tokens.get(layout.pool, True):
        raise UserError(
            f"the model has no token for config.model_options.pool={layout.pool}: use mean, or leave it out"
        )
    choose_attention(config.attention, config.dtype, config.hidden_size // config.heads, target)
    return from_linen(config, _VisionTransformer(config, target), (config.image_size, config.image_size, 3))


def infer_fields(stored: Stored, family: Family[Any], title: str = "") -> dict[str, Any]:
    """Infers the fields of a shape that all Vision Transformers have from a checkpoint's arrays.

    Args:
      stored: the checkpoint; a model without a head has 0 classes.
      family: the family, for the names of its parameters, and for the options that the checkpoint does not record.
      title: the kind of checkpoint, for messages; "" for the family's title.

    Returns:
      Arguments of `ViTConfig`.

    Raises:
      UserError: an array that determines the shape is missing or has another rank, or a recorded option is impossible.
    """
    recorded = {name: stored.options.get(name, family.options[name]) for name in family.recorded}
    check_options(recorded["activation"], recorded["epsilon"], recorded["pool"], f"{stored.where} records")

    def shape(name: str, rank: int) -> tuple[int, ...]:
        return stored.shape(name, rank, title or family.title)

    patch_size, _, _, hidden_size = shape(family.patch_kernel, 4)
    rows = shape(family.positions, 3)[1]
    first = "Transformer/encoderblock_0"
    return {
        "patch_size": patch_size,
        "hidden_size": hidden_size,
        "layers": stored.count(r"Transformer/encoderblock_(\d+)/"),
        "heads": shape(f"{first}/MultiHeadDotProductAttention_1/query/kernel", 3)[1],
        # The first layer of a gated MLP is twice as wide as the second layer's input.
        "mlp_size": shape(f"{first}/MlpBlock_3/Dense_1/kernel", 2)[0],
        "image_size": math.isqrt(max(rows - family.prefix_rows(rows), 0)) * patch_size,
        "num_classes": shape("head/kernel", 2)[1] if "head/kernel" in stored.arrays else 0,
        "dtype": stored.dtype,
        **recorded,
    }


def size_name(config: ViTConfig, sizes: Mapping[str, Size]) -> str:
    """Returns size and patch of a shape, such as "B/16"; "" for a shape that has no name."""
    shape = (config.hidden_size, config.layers, config.heads, config.mlp_size)
    return next((f"{name}/{config.patch_size}" for name, size in sizes.items() if size == shape), "")


def describe(config: ViTConfig) -> dict[str, str]:
    """Returns the facts of a shape that `ppvit info` shows."""
    layout = config.layout
    tokens = {"class": layout.class_token, "distillation": layout.distillation_token, "register": layout.registers}
    named = [f"{int(count)} {name}" for name, count in tokens.items() if count]
    mlp = f"{'SwiGLU' if layout.gated else 'MLP'} {config.mlp_size}"
    return {
        "shape": f"hidden {config.hidden_size}, {config.layers} layers, {config.heads} heads, {mlp}",
        "tokens before the patches": ", ".join(named) or "none",
        "pooling": layout.pool,
        "activation": f"{'silu' if layout.gated else config.activation}, epsilon {config.epsilon:g}",
    }


class _Layers(nn.Module):
    """Dense layers of one part of a model: (name, shape of an input, shape of an output) of each."""

    layers: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    @nn.compact
    def __call__(self) -> list[Layer]:
        init = nn.initializers.xavier_uniform()
        return [Dense(inputs, outputs, kernel_init=init, name=name)() for name, inputs, outputs in self.layers]


class _AttentionPooling(nn.Module):
    """Multihead attention pooling: a learned query attends to all tokens, and an MLP follows.

    Reference: MAPHead of google-research/big_vision, models/vit.py, whose names the parameters have.
    """

    config: ViTConfig
    target: Target

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Pools [batch, tokens, hidden] to [batch, hidden]."""
        config, (batch, count, width) = self.config, x.shape
        heads, dtype = (config.heads, width // config.heads), config.dtype
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, width))
        inward = [(name, (width,), heads) for name in ("query", "key", "value")]
        names = (*inward, ("out", heads, (width,)))
        query, key, value, out = _Layers(names, name="MultiHeadDotProductAttention_0")()
        sizes = (("Dense_0", (width,), (config.mlp_size,)), ("Dense_1", (config.mlp_size,), (width,)))
        first, second = _Layers(sizes, name="MlpBlock_0")()

        (q,) = linear(probe[0].astype(x.dtype), [query], dtype, self.target)
        k, v = (y.reshape(batch, count, *heads).astype(dtype) for y in linear(x, [key, value], dtype, self.target))
        logits = sum_products("hk,bnhk->bhn", q.reshape(heads).astype(dtype), k)
        weights = jax.nn.softmax(logits * heads[1] ** -0.5).astype(dtype)
        y = sum_products("bhn,bnhk->bhk", weights, v).reshape(batch, width).astype(x.dtype)
        (y,) = linear(y, [out], dtype, self.target)
        scale, bias = LayerNorm(width, name="LayerNorm_0")()
        hidden = (standardize(y, config.epsilon) * scale + bias).astype(y.dtype)
        hidden = activate(linear(hidden, [first], dtype, self.target)[0], config.activation)
        return y + linear(hidden, [second], dtype, self.target)[0]


class _PatchKernel(nn.Module):
    """Kernel of a patch embedding without a bias."""

    inputs: tuple[int, ...]
    outputs: int

    @nn.compact
    def __call__(self) -> jax.Array:
        shape = (*self.inputs, self.outputs)
        kernel = self.param("kernel", nn.initializers.lecun_normal(in_axis=(0, 1, 2)), shape)
        return kernel.reshape(-1, self.outputs)


class _VisionTransformer(nn.Module):
    config: ViTConfig
    target: Target

    @nn.compact
    def __call__(self, images: jax.Array, train: bool, kept: jax.Array | None = None) -> jax.Array:
        config, layout = self.config, self.config.layout
        batch, height, width, channels = images.shape
        patch, hidden, dtype = config.patch_size, (config.hidden_size,), config.dtype

        def apply(x: jax.Array, layer: tuple[jax.Array, jax.Array | None]) -> jax.Array:
            return linear(x, [layer], dtype, self.target)[0]

        # A convolution whose stride is its size: one matrix product over (row, column, channel) of each patch.
        images = self.target.divide_batch(images)
        patches = images.reshape(batch, height // patch, patch, width // patch, patch, channels)
        patches = patches.swapaxes(2, 3).reshape(-1, patch**2 * channels)
        values = (patch, patch, channels)
        if layout.patch_bias:
            embedding: tuple[jax.Array, jax.Array | None] = Dense(values, hidden, name="embedding")()
        else:
            embedding = _PatchKernel(values, *hidden, name="embedding")(), None
        x = apply(patches, embedding).reshape(batch, -1, *hidden)
        positions = None
        if layout.top_positions:
            rows = layout.prefix_rows + x.shape[1]
            positions = self.param("pos_embedding", nn.initializers.normal(stddev=0.02), (1, rows, *hidden))[0]
        x = Encoder(config, self.target, name="Transformer")(x, self._prefix(), positions, kept, train=train)
        if layout.pool == "map":
            x = _AttentionPooling(config, self.target, name="MAPHead_0")(x)

        if config.representation_size is not None:
            representation = (config.representation_size,)
            x = nn.tanh(apply(x, Dense(hidden, representation, name="pre_logits")()))

        def head(x: jax.Array, name: str) -> jax.Array:
            layer = Dense(x.shape[1:], (config.num_classes,), kernel_init=nn.initializers.zeros, name=name)
            return apply(x, layer()).astype(jnp.promote_types(dtype, jnp.float32))

        if layout.pool == "distilled":
            return (head(x[:, 0], "head") + head(x[:, 1], "head_dist")) / 2
        return head(x, "head")

    def _prefix(self) -> jax.Array:
        """Returns the tokens before the patches, [prefix tokens, hidden]."""
        layout, hidden = self.config.layout, self.config.hidden_size
        tokens = [jnp.zeros((0, hidden), jnp.float32)]
        counts = {"cls": layout.class_token, "dist": layout.distillation_token, "registers": layout.registers}
        for name, count in counts.items():
            if count:
                tokens.append(self.param(name, nn.initializers.zeros, (1, int(count), hidden))[0])
        # A checkpoint's tokens may be in float64.
        return jnp.concatenate(tokens[1:] or tokens)
