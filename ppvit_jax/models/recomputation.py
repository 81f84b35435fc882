"""Functions whose values are computed again in the backward pass, which then needs to keep their arguments alone.

Reference: Chen et al., "Training deep nets with sublinear memory cost", arXiv 1604.06174.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ppvit_jax.models.target import Target


def recompute(function: Callable[..., Any], target: Target) -> Callable[..., jax.Array]:
    """Returns the same function, whose backward pass computes its values again.

    Args:
      function: (x, *arguments) -> an array like x.
      target: the devices to compile for.
    """
    if not target.is_cpu:
        return jax.checkpoint(function)

    # XLA removes the barriers of jax.checkpoint on a CPU, and then keeps the values of the forward pass.
    def forward(x: jax.Array, *arguments: Any) -> tuple[jax.Array, tuple]:
        return function(x, *arguments), (x, *arguments)

    def backward(saved: tuple, gradient: jax.Array) -> tuple:
        x, *arguments = saved
        _, differentiate = jax.vjp(function, _after(gradient, x), *arguments)
        return differentiate(gradient)

    recomputed = jax.custom_vjp(function)
    recomputed.defvjp(forward, backward)
    return recomputed


def _after(gradient: jax.Array, x: jax.Array) -> jax.Array:
    """Returns x through a choice that always falls on it, which XLA cannot know before it has the gradient."""
    bits = jax.lax.bitcast_convert_type(gradient, jnp.dtype(f"uint{8 * gradient.dtype.itemsize}"))
    return jnp.where((bits | 1) != 0, x, jnp.zeros_like(x))
