"""Encoder of a Vision Transformer: class token, position embedding, blocks, and the normalization of the class token.

On a GPU or CPU, the tokens of all images are the rows of one matrix, [batch * tokens, hidden], because XLA lays out a
three-dimensional residual stream so that products must transpose it. On a TPU, whose tiles hold 8 tokens of one image,
the stream is [batch, tokens, hidden].
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ppvit_jax.models.activations import activate
from ppvit_jax.models.attention import attention, choose_attention, padded_tokens
from ppvit_jax.models.layer_norm import standardize
from ppvit_jax.models.products import activation_dtype, linear
from ppvit_jax.models.target import Target
from ppvit_jax.models.vit_config import ViTConfig

Layer = tuple[jax.Array, jax.Array]


class Dense(nn.Module):
    """Parameters of a dense layer, with the names, shapes and initialization of Flax's DenseGeneral.

    Attributes:
      inputs, outputs: shapes of one example.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel_init: Any = nn.initializers.lecun_normal()
    bias_init: Any = nn.initializers.zeros

    @nn.compact
    def __call__(self) -> Layer:
        """Returns the kernel as a matrix and the bias as a vector."""
        flat = math.prod(self.inputs), math.prod(self.outputs)
        kernel = self.param(
            "kernel", lambda rng: self.kernel_init(rng, flat, jnp.float32).reshape(*self.inputs, *self.outputs)
        )
        bias = self.param("bias", self.bias_init, self.outputs)
        return kernel.reshape(flat), bias.reshape(-1)


class LayerNorm(nn.Module):
    """Parameters of a layer normalization."""

    width: int

    @nn.compact
    def __call__(self) -> Layer:
        """Returns scale and bias, [width] each."""
        scale = self.param("scale", nn.initializers.ones, (self.width,))
        return scale, self.param("bias", nn.initializers.zeros, (self.width,))


def _fold(norm: Layer, layer: Layer) -> Layer:
    """Folds a normalization's scale and bias into the dense layer after it: (s K, b K + c) for (h s + b) K + c.

    Gradients of s and b are then sums over a kernel, and not over all tokens.
    """
    (scale, shift), (kernel, bias) = norm, layer
    return scale[:, None] * kernel, shift @ kernel + bias


_xavier = functools.partial(Dense, kernel_init=nn.initializers.xavier_uniform())


class _MlpBlock(nn.Module):
    config: ViTConfig
    target: Target

    @nn.compact
    def __call__(self, x: jax.Array, norm: Layer) -> jax.Array:
        width, size, dtype = (x.shape[-1],), (self.config.mlp_size,), self.config.dtype
        dense = functools.partial(_xavier, bias_init=nn.initializers.normal(stddev=1e-6))
        (hidden,) = linear(x, [_fold(norm, dense(width, size, name="Dense_0")())], dtype, self.target)
        hidden = activate(hidden, self.config.activation)
        return linear(hidden, [dense(size, width, name="Dense_1")()], dtype, self.target)[0]


class _Attention(nn.Module):
    config: ViTConfig
    target: Target
    implementation: str
    tokens: int

    @nn.compact
    def __call__(self, x: jax.Array, norm: Layer) -> jax.Array:
        width = x.shape[-1]
        dtype, heads = self.config.dtype, (self.config.heads, width // self.config.heads)
        layers = [_fold(norm, _xavier((width,), heads, name=name)()) for name in ("query", "key", "value")]
        padded = padded_tokens(self.tokens, self.implementation)
        query, key, value = (y.reshape(-1, padded, *heads) for y in linear(x, layers, dtype, self.target))
        y = attention(query, key, value, dtype, self.implementation, self.target, self.tokens)
        out = _xavier(heads, (width,), name="out")()
        return linear(y.reshape(x.shape), [out], dtype, self.target)[0]


class _EncoderBlock(nn.Module):
    config: ViTConfig
    target: Target
    implementation: str
    tokens: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width, epsilon = x.shape[-1], self.config.epsilon
        norm = LayerNorm(width, name="LayerNorm_0")()
        attend = _Attention(
            self.config, self.target, self.implementation, self.tokens, name="MultiHeadDotProductAttention_1"
        )
        x = x + attend(standardize(x, epsilon), norm)
        norm = LayerNorm(width, name="LayerNorm_2")()
        return x + _MlpBlock(self.config, self.target, name="MlpBlock_3")(standardize(x, epsilon), norm)


class _PositionEmbedding(nn.Module):
    tokens: int
    width: int

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param("pos_embedding", nn.initializers.normal(stddev=0.02), (1, self.tokens, self.width))


@jax.custom_vjp
def _add_to_batch(x: jax.Array, embedding: jax.Array) -> jax.Array:
    """Adds [tokens, hidden] to [batch, tokens, hidden]; the embedding's gradient is summed in its own dtype."""
    return x + embedding.astype(x.dtype)


def _add_forward(x: jax.Array, embedding: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _add_to_batch(x, embedding), jnp.empty(0, embedding.dtype)


def _add_backward(like: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    wide = jnp.promote_types(gradient.dtype, jnp.float32)
    return gradient, gradient.sum(0, dtype=wide).astype(like.dtype)


_add_to_batch.defvjp(_add_forward, _add_backward)


class Encoder(nn.Module):
    """Encoder with the parameter names of Google's models.

    Attributes:
      config: the model's shape.
      target: the devices to compile for.
    """

    config: ViTConfig
    target: Target

    @nn.compact
    def __call__(self, patches: jax.Array, class_token: jax.Array) -> jax.Array:
        """Computes the normalized class token after the last block.

        Args:
          patches: [batch, patches, hidden], the embedded patches.
          class_token: [hidden].

        Returns:
          [batch, hidden].
        """
        config = self.config
        batch, count, width = patches.shape
        tokens = count + 1
        implementation = choose_attention(config.attention, config.dtype, width // config.heads, self.target)
        padding = padded_tokens(tokens, implementation) - tokens
        (embedding,) = _PositionEmbedding(tokens, width, name="posembed_input")()
        # The class token comes first. Rows of padding come last: they are zero here, and nothing reads them.
        embedding = self.target.gather(embedding)
        embedding = jnp.pad(jnp.asarray(embedding).at[0].add(class_token), ((0, padding), (0, 0)))
        x = _add_to_batch(jnp.pad(patches, ((0, 0), (1, padding), (0, 0))), embedding)
        if self.target.platform != "tpu":
            x = x.reshape(-1, width)
        for layer in range(config.layers):
            x = _EncoderBlock(config, self.target, implementation, tokens, name=f"encoderblock_{layer}")(x)
        x = standardize(x.reshape(batch, -1, width)[:, 0], config.epsilon)
        scale, bias = LayerNorm(width, name="encoder_norm")()
        return (x * scale + bias).astype(activation_dtype(config.dtype, self.target))
