"""Layer normalization of arXiv 1607.06450 without its scale and bias, with a gradient of its own."""

import functools
from typing import Any

import jax
import jax.numpy as jnp


def standardize(x: jax.Array, epsilon: float) -> jax.Array:
    """Subtracts the mean of the last axis and divides by the standard deviation.

    The result is h = (x - mean(x)) r with r = 1 / sqrt(var(x) + epsilon). Its gradient is
    r (g - mean(g) - h mean(g h)), of which the backward pass keeps h and r alone. The result is also the input of the
    next product, which keeps it anyway.

    Args:
      x: [..., features], floating point.
      epsilon: number that is added to the variance.

    Returns:
      [..., features] in the dtype of `x`; statistics are in float32, or float64 for float64.
    """
    result: Any = _standardize(x, epsilon)
    return result


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _standardize(x: jax.Array, epsilon: float) -> jax.Array:
    return _standardize_forward(x, epsilon)[0]


def _standardize_forward(x: jax.Array, epsilon: float) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centered = wide - wide.mean(-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.square(centered).mean(-1, keepdims=True) + epsilon)
    result = (centered * scale).astype(x.dtype)
    return result, (result, scale)


def _standardize_backward(epsilon: float, saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    result, scale = saved
    h, g = result.astype(scale.dtype), gradient.astype(scale.dtype)
    x_gradient = scale * (g - g.mean(-1, keepdims=True) - h * (g * h).mean(-1, keepdims=True))
    return (x_gradient.astype(gradient.dtype),)


_standardize.defvjp(_standardize_forward, _standardize_backward)
