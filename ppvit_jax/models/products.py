"""Matrix products of a Vision Transformer, written so that they run fast.

"bfloat16" means bfloat16 operands and float32 accumulation everywhere. An accelerator rounds the sums to bfloat16,
which halves the memory traffic; a CPU keeps them in float32, because it computes in nothing smaller.

On a CPU, XLA (0.10 and 0.11) multiplies bfloat16 fast only if the left operand is summed over its last axis, and it
runs batched products on one core. The gradients are therefore written out here: the narrower operand is transposed, and
attention is split into independent parts, which XLA computes in parallel.
"""

import math
import os
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ppvit_jax.models.target import Target, default_target

# Largest number of parts into which attention is split on a CPU; more take longer to compile than they save.
_MAX_PARTS = 8
# Extra rows that keep XLA from folding a transposition into a product, which would then not run in bfloat16.
_EXTRA_ROWS = 8


def activation_dtype(dtype: DTypeLike, target: Target | None = None) -> np.dtype:
    """Returns the dtype of the values between products, given the compute dtype."""
    return jnp.promote_types(dtype, jnp.float32) if (target or default_target()).is_cpu else jnp.dtype(dtype)


def dense(x: jax.Array, kernel: jax.Array, dtype: DTypeLike, target: Target | None = None) -> jax.Array:
    """Multiplies the last axis of an array by a matrix.

    Args:
      x: [..., inputs], floating point.
      kernel: [inputs, outputs], floating point.
      dtype: compute dtype, to which the operands are cast.
      target: the devices to compile for; None for JAX's default devices.

    Returns:
      [..., outputs] in `activation_dtype(dtype, target)`.
    """
    chex.assert_type([x, kernel], float)
    chex.assert_shape(kernel, (x.shape[-1], None))
    rows, kernel = x.reshape(-1, x.shape[-1]).astype(dtype), kernel.astype(dtype)
    product = _product(rows, kernel) if (target or default_target()).is_cpu else rows @ kernel
    return product.reshape(*x.shape[:-1], kernel.shape[-1])


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    dtype: DTypeLike,
    implementation: str,
    target: Target | None = None,
) -> jax.Array:
    """Computes scaled dot-product attention, with the softmax in float32 or more.

    The result is softmax(query key^T / sqrt(values)) value: equation 1 of arXiv 1706.03762.

    Args:
      query, key, value: [batch, tokens, heads, values], floating point.
      dtype: compute dtype, to which the operands are cast.
      implementation: "xla"; or "cudnn", the flash attention of cuDNN, on a CUDA device in bfloat16.
      target: the devices to compile for; None for JAX's default devices.

    Returns:
      [batch, tokens, heads, values] in `activation_dtype(dtype, target)`.
    """
    chex.assert_rank(query, 4)
    chex.assert_equal_shape([query, key, value])
    chex.assert_type([query, key, value], float)
    operands = [array.astype(dtype) for array in (query, key, value)]
    target = target or default_target()
    if not target.is_cpu:
        untyped: Any = implementation
        return jax.nn.dot_product_attention(*operands, implementation=untyped)
    by_head = [array.swapaxes(1, 2) for array in operands]
    # Splitting a batch that is sharded over several devices would move data between them.
    count = math.gcd(len(query), min(_MAX_PARTS, 2 * (os.cpu_count() or 1))) if target.devices == 1 else 1
    pieces = [_attention(*piece) for piece in zip(*(jnp.split(array, count) for array in by_head), strict=True)]
    return jnp.concatenate(pieces).swapaxes(1, 2)


# Operands are in the compute dtype; sums and results are in float32 or more.
def _sum(equation: str, *operands: jax.Array) -> jax.Array:
    wide = jnp.promote_types(operands[0].dtype, jnp.float32)
    return jnp.einsum(equation, *operands, preferred_element_type=wide)


def _multiply_transposed(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes a^T b: [..., k, m], [..., k, n] -> [..., m, n]."""
    a = a.swapaxes(-1, -2)
    if a.dtype != jnp.bfloat16:
        return _sum("...mk,...kn->...mn", a, b)
    padded = jnp.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, _EXTRA_ROWS), (0, 0)])
    return _sum("...mk,...kn->...mn", padded, b)[..., : a.shape[-2], :]


@jax.custom_vjp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _sum("rk,kn->rn", x, kernel)


def _product_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _product(x, kernel), (x, kernel)


def _product_backward(saved: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    gradient = gradient.astype(x.dtype)
    narrow = x.shape[1] <= gradient.shape[1]
    kernel_gradient = _multiply_transposed(x, gradient) if narrow else _multiply_transposed(gradient, x).T
    return _sum("rn,kn->rk", gradient, kernel), kernel_gradient


_product.defvjp(_product_forward, _product_backward)


@jax.custom_vjp
def _attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return _attention_forward(query, key, value)[0]


def _attention_forward(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    scale = query.shape[-1] ** -0.5
    weights = jax.nn.softmax(scale * _sum("bhnk,bhmk->bhnm", query, key)).astype(query.dtype)
    return _sum("bhnm,bhmk->bhnk", weights, value), (query, key, value, weights)


def _attention_backward(saved: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, ...]:
    query, key, value, weights = saved
    gradient = gradient.astype(query.dtype)
    value_gradient = _multiply_transposed(gradient, weights).swapaxes(-1, -2)
    weights_gradient = _sum("bhnk,bhmk->bhnm", gradient, value)
    mean = (weights_gradient * weights).sum(-1, keepdims=True)
    logits_gradient = (query.shape[-1] ** -0.5 * weights * (weights_gradient - mean)).astype(query.dtype)
    key_gradient = _multiply_transposed(query, logits_gradient).swapaxes(-1, -2)
    return _sum("bhnm,bhmk->bhnk", logits_gradient, key), key_gradient, value_gradient


_attention.defvjp(_attention_forward, _attention_backward)
