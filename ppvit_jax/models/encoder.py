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
from ppvit_jax.models.drop_path import branch_factors, drop_rates, rows_of_examples
from ppvit_jax.models.layer_norm import standardize
from ppvit_jax.models.products import activation_dtype, linear
from ppvit_jax.models.recomputation import recompute
from ppvit_jax.models.rotary import grid_angles, rotate
from ppvit_jax.models.target import Target
from ppvit_jax.models.token_dropping import keep_patches
from ppvit_jax.models.vit_config import ViTConfig

Layer = tuple[jax.Array, jax.Array]
# Base of the frequencies of DINOv3's rotary positions.
ROTARY_BASE = 100.0


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


class _LayerScale(nn.Module):
    width: int
    factor: str

    @nn.compact
    def __call__(self, layer: Layer) -> Layer:
        """Folds the factors into the layer before them: (K f, b f) for (x K + b) f."""
        if not self.factor:
            return layer
        factor = self.param(self.factor, nn.initializers.ones, (self.width,))
        return layer[0] * factor, layer[1] * factor


class _MlpBlock(nn.Module):
    config: ViTConfig
    target: Target

    @nn.compact
    def __call__(self, x: jax.Array, norm: Layer, scale: _LayerScale) -> jax.Array:
        width, size, dtype = (x.shape[-1],), self.config.mlp_size, self.config.dtype
        dense = functools.partial(_xavier, bias_init=nn.initializers.normal(stddev=1e-6))
        first = dense(width, (2 * size if self.config.layout.gated else size,), name="Dense_0")
        (hidden,) = linear(x, [_fold(norm, first())], dtype, self.target)
        if self.config.layout.gated:
            gate, value = jnp.split(hidden, 2, axis=-1)
            hidden = activate(gate, "silu") * value
        else:
            hidden = activate(hidden, self.config.activation)
        return linear(hidden, [scale(dense((size,), width, name="Dense_1")())], dtype, self.target)[0]


class _Attention(nn.Module):
    config: ViTConfig
    target: Target
    implementation: str
    tokens: int

    @nn.compact
    def __call__(self, x: jax.Array, norm: Layer, scale: _LayerScale, angles: jax.Array | None) -> jax.Array:
        width = x.shape[-1]
        dtype, heads = self.config.dtype, (self.config.heads, width // self.config.heads)
        layers = [_fold(norm, _xavier((width,), heads, name=name)()) for name in ("query", "key", "value")]
        padded = padded_tokens(self.tokens, self.implementation)
        query, key, value = (y.reshape(-1, padded, *heads) for y in linear(x, layers, dtype, self.target))
        if angles is not None:
            query, key = (rotate(y, angles, self.target) for y in (query, key))
        y = attention(query, key, value, dtype, self.implementation, self.target, self.tokens)
        out = scale(_xavier(heads, (width,), name="out")())
        return linear(y.reshape(x.shape), [out], dtype, self.target)[0]


class _EncoderBlock(nn.Module):
    config: ViTConfig
    target: Target
    implementation: str
    tokens: int

    @nn.compact
    def __call__(self, x: jax.Array, angles: jax.Array | None, factors: jax.Array | None) -> jax.Array:
        width, epsilon, factor = x.shape[-1], self.config.epsilon, self.config.layout.layer_scale
        norm = LayerNorm(width, name="LayerNorm_0")()
        attend = _Attention(
            self.config, self.target, self.implementation, self.tokens, name="MultiHeadDotProductAttention_1"
        )
        y = attend(standardize(x, epsilon), norm, _LayerScale(width, factor, name="LayerScale_0"), angles)
        x = x + (y if factors is None else y * factors[0])
        norm = LayerNorm(width, name="LayerNorm_2")()
        mlp = _MlpBlock(self.config, self.target, name="MlpBlock_3")
        y = mlp(standardize(x, epsilon), norm, _LayerScale(width, factor, name="LayerScale_1"))
        return x + (y if factors is None else y * factors[1])


class _PositionEmbedding(nn.Module):
    tokens: int
    width: int

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param("pos_embedding", nn.initializers.normal(stddev=0.02), (1, self.tokens, self.width))


class _Rotary(nn.Module):
    config: ViTConfig

    @nn.compact
    def __call__(self) -> jax.Array:
        config = self.config
        grid, head_size = config.grid_size, config.hidden_size // config.heads
        angles = self.param("angles", lambda rng: jnp.asarray(grid_angles(grid, head_size, ROTARY_BASE))[None])
        return jax.lax.stop_gradient(jnp.asarray(angles[0]))


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
    def __call__(
        self,
        patches: jax.Array,
        prefix: jax.Array,
        positions: jax.Array | None = None,
        kept: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        """Computes the features that the head takes, or that attention pooling takes.

        Args:
          patches: [batch, patches, hidden], the embedded patches.
          prefix: [prefix tokens, hidden], the tokens before the patches.
          positions: [prefix rows + patches, hidden]; None if they are a parameter of the encoder.
          kept: int32 [batch, patches to keep], the numbers of the patches that are not dropped; None to keep all.
          train: True for training mode, in which branches are dropped and values computed again as the shape says.

        Returns:
          [batch, hidden]; [batch, 2, hidden] for two tokens, [batch, 2 * hidden] for the class token and the mean, and
          [batch, patches, hidden] for attention pooling; see `ppvit_jax.models.layout.POOLS`.
        """
        config, layout = self.config, self.config.layout
        batch, count, width = patches.shape
        tokens = len(prefix) + (count if kept is None else kept.shape[1])
        implementation = choose_attention(config.attention, config.dtype, width // config.heads, self.target)
        padding = padded_tokens(tokens, implementation) - tokens
        rows, own = layout.prefix_rows, len(prefix)
        angles = None
        if layout.rotary:
            # Only patches are rotated.
            angles = jnp.pad(_Rotary(config, name="rotary")(), ((own, padding), (0, 0)))
            positions = jnp.zeros((rows + count, width), prefix.dtype)
        elif positions is None:
            positions = jnp.asarray(_PositionEmbedding(rows + count, width, name="posembed_input")()[0])
        # Tokens before the patches come first. Rows of padding come last: they are zero here, and nothing reads them.
        embedding = jnp.pad(jnp.asarray(self.target.gather(positions)), ((0, padding), (0, 0)))
        if own > rows:
            embedding = jnp.insert(embedding, jnp.full(own - rows, rows), 0, axis=0)
        if own:
            embedding = embedding.at[:own].add(prefix)
        x = _add_to_batch(jnp.pad(patches, ((0, 0), (own, padding), (0, 0))), embedding)
        if kept is not None:
            x = keep_patches(x, kept, own, count)
            angles = None if angles is None else keep_patches(angles, kept, own, count)
        if self.target.platform != "tpu":
            x = x.reshape(-1, width)
        if layout.pre_norm:
            scale, bias = LayerNorm(width, name="pre_norm")()
            x = (standardize(x, config.epsilon) * scale + bias).astype(x.dtype)
        # Drawn outside of the blocks, so that a block that is computed again drops the same branches.
        factors = None
        if train and config.drop_path:
            drawn = branch_factors(self.make_rng("random"), config.drop_path, config.layers, batch)
            factors = rows_of_examples(drawn, x)
        fields = (config, self.target, implementation, tokens)
        unbound = _EncoderBlock(*fields, parent=None)
        apply_twice = recompute(lambda x, params, *rest: unbound.apply({"params": params}, x, *rest), self.target)
        for layer, rate in enumerate(drop_rates(config.drop_path, config.layers)):
            name, rest = f"encoderblock_{layer}", (angles, factors[layer] if factors is not None and rate else None)
            if train and config.remat == "blocks":
                x = apply_twice(x, self.variables["params"][name], *rest)
            else:
                x = _EncoderBlock(*fields, name=name)(x, *rest)
        return self._pool(x.reshape(batch, -1, width), slice(own, tokens))

    def _pool(self, x: jax.Array, patches: slice) -> jax.Array:
        """Returns the features of POOLS for the tokens [batch, tokens, hidden], of which `patches` are the patches."""
        config, pool = self.config, self.config.layout.pool
        dtype = activation_dtype(config.dtype, self.target)
        scale, bias = LayerNorm(x.shape[-1], name="encoder_norm")()
        wide = jnp.promote_types(dtype, jnp.float32)

        def normalize(tokens: jax.Array) -> jax.Array:
            return (standardize(tokens, config.epsilon) * scale + bias).astype(dtype)

        if pool == "token":
            return normalize(x[:, 0])
        if pool == "distilled":
            return normalize(x[:, :2])
        if pool in ("mean", "raw_mean"):
            mean = x[:, patches].mean(1, dtype=wide).astype(dtype)
            return normalize(mean) if pool == "mean" else mean
        features = normalize(x[:, patches])
        if pool == "map":
            return features
        mean = features.mean(1, dtype=wide).astype(dtype)
        return mean if pool == "norm_mean" else jnp.concatenate([normalize(x[:, 0]), mean], -1)
