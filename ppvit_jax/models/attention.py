"""Scaled dot-product attention in the implementation that is fast on each device.

On a CPU, XLA (0.10 and 0.11) runs batched products on one core. Attention is therefore split there into independent
parts, which XLA computes in parallel, and its gradients are written out. On an NVIDIA GPU in bfloat16, cuDNN's flash
attention (arXiv 2205.14135) keeps no attention weights. It takes numbers of tokens that are multiples of 8.
"""

import math
import os
import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ppvit_jax.errors import UserError
from ppvit_jax.models.products import activation_dtype, multiply_transposed, sum_products
from ppvit_jax.models.target import Target, default_target

IMPLEMENTATIONS = ("auto", "xla", "cudnn")
# Largest number of parts into which attention is split on a CPU; more take longer to compile than they save.
_MAX_PARTS = 8
# Conditions of cuDNN's flash attention: the number of tokens, the values of a head, and the device's generation
# (Ampere).
_TOKEN_MULTIPLE = 8
_LARGEST_HEAD = 128
_LEAST_CAPABILITY = 8.0


def choose_attention(implementation: str, dtype: str, head_size: int, target: Target) -> str:
    """Chooses the implementation of attention for the devices to compile for.

    Args:
      implementation: one of IMPLEMENTATIONS. "auto" chooses "cudnn" wherever it computes this attention, and "xla"
        elsewhere.
      dtype: compute dtype.
      head_size: values of a head.
      target: the devices to compile for.

    Returns:
      "xla" or "cudnn".

    Raises:
      UserError: the implementation is unknown, or "cudnn" does not support the devices, the dtype or the size.
    """
    if implementation not in IMPLEMENTATIONS:
        raise UserError(f"unknown attention {implementation!r}: use {', '.join(IMPLEMENTATIONS[:-1])} or cudnn")
    suits = (target.platform, dtype) == ("gpu", "bfloat16") and head_size % 8 == 0 and head_size <= _LARGEST_HEAD
    if implementation == "cudnn" and not suits:
        raise UserError(
            f"attention cudnn needs a CUDA GPU and dtype bfloat16, not {target.platform} and {dtype}, and heads of at "
            f"most {_LARGEST_HEAD} values in multiples of 8, not {head_size}: use auto"
        )
    if implementation == "auto":
        return "cudnn" if suits and _has_flash_attention() else "xla"
    return implementation


def padded_tokens(tokens: int, implementation: str) -> int:
    """Returns the number of tokens, at least `tokens`, with which an implementation of attention computes."""
    return -(-tokens // _TOKEN_MULTIPLE) * _TOKEN_MULTIPLE if implementation == "cudnn" else tokens


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    dtype: DTypeLike,
    implementation: str,
    target: Target | None = None,
    tokens: int | None = None,
) -> jax.Array:
    """Computes scaled dot-product attention, with the softmax in float32 or more.

    The result is softmax(query key^T / sqrt(values)) value: equation 1 of arXiv 1706.03762.

    Args:
      query, key, value: [batch, tokens, heads, values], floating point.
      dtype: compute dtype, to which the operands are cast.
      implementation: "xla"; or "cudnn", which needs a number of tokens from `padded_tokens`.
      target: the devices to compile for; None for JAX's default devices.
      tokens: number of tokens before padding. Padding is not attended to, and its rows of the result are zeros. None
        for no padding.

    Returns:
      [batch, tokens, heads, values] in `activation_dtype(dtype, target)`.
    """
    chex.assert_rank(query, 4)
    chex.assert_equal_shape([query, key, value])
    chex.assert_type([query, key, value], float)
    target = target or default_target()
    operands = [array.astype(dtype) for array in (query, key, value)]
    is_padded = tokens is not None and tokens < query.shape[1]
    # JAX's function computes the softmax of float64 in float32.
    is_ours = target.is_cpu or jnp.dtype(dtype) == jnp.float64
    if is_padded or not is_ours:
        # cuDNN's gradients are wrong for some numbers of tokens unless it has their lengths
        # (github.com/NVIDIA/cudnn-frontend/issues/160).
        lengths: Any = None
        if is_padded or implementation == "cudnn":
            lengths = jnp.full(len(query), tokens or query.shape[1], jnp.int32)
        library: Any = implementation
        result = jax.nn.dot_product_attention(
            *operands, query_seq_lengths=lengths, key_value_seq_lengths=lengths, implementation=library
        )
        return result.astype(activation_dtype(dtype, target))
    by_head = [array.swapaxes(1, 2) for array in operands]
    # Splitting a batch that is sharded over several devices would move data between them.
    is_split = target.is_cpu and target.devices == 1
    count = math.gcd(len(query), min(_MAX_PARTS, 2 * (os.cpu_count() or 1))) if is_split else 1
    pieces = [_attention(*piece) for piece in zip(*(jnp.split(array, count) for array in by_head), strict=True)]
    return jnp.concatenate(pieces).swapaxes(1, 2)


def _has_flash_attention() -> bool:
    """Returns False if this machine has a GPU that cuDNN's flash attention does not support.

    Programs may also be compiled on a machine without a GPU.
    """
    if jax.default_backend() != "gpu":
        return True
    capability = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    # An AMD GPU has a name such as "gfx90a" here.
    return bool(re.fullmatch(r"\d+\.\d+", capability)) and float(capability) >= _LEAST_CAPABILITY


@jax.custom_vjp
def _attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return _attention_forward(query, key, value)[0]


def _attention_forward(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    scale = query.shape[-1] ** -0.5
    weights = jax.nn.softmax(scale * sum_products("bhnk,bhmk->bhnm", query, key)).astype(query.dtype)
    return sum_products("bhnm,bhmk->bhnk", weights, value), (query, key, value, weights)


def _attention_backward(saved: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, ...]:
    query, key, value, weights = saved
    gradient = gradient.astype(query.dtype)
    value_gradient = multiply_transposed(gradient, weights).swapaxes(-1, -2)
    weights_gradient = sum_products("bhnk,bhmk->bhnm", gradient, value)
    mean = (weights_gradient * weights).sum(-1, keepdims=True)
    logits_gradient = (query.shape[-1] ** -0.5 * weights * (weights_gradient - mean)).astype(query.dtype)
    key_gradient = multiply_transposed(query, logits_gradient).swapaxes(-1, -2)
    return sum_products("bhnm,bhmk->bhnk", logits_gradient, key), key_gradient, value_gradient


_attention.defvjp(_attention_forward, _attention_backward)
