"""Activations of the MLPs, which keep their input alone for the backward pass."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

# The tanh form is that of Google's models. "gelu" is x times the normal distribution's cumulative function at x, and
# "quick_gelu" its approximation by a sigmoid: section 2 of arXiv 1606.08415.
_FUNCTIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_tanh": lambda x: nn.gelu(x, approximate=True),
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "silu": nn.silu,
}
# Names of the activations that an MLP without a gate may have.
ACTIVATIONS = ("gelu_tanh", "gelu", "quick_gelu")


def activate(x: jax.Array, name: str) -> jax.Array:
    """Applies an activation to every element.

    The backward pass computes it again from `x`, so that the forward pass can be part of the product before it.

    Args:
      x: an array, floating point.
      name: one of ACTIVATIONS.
    """
    result: Any = _activate(x, name)
    return result


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _activate(x: jax.Array, name: str) -> jax.Array:
    return _FUNCTIONS[name](x)


def _forward(x: jax.Array, name: str) -> tuple[jax.Array, jax.Array]:
    return _activate(x, name), x


def _backward(name: str, x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    # Without the barrier, XLA would compute parts of it in the forward pass and keep them.
    _, pull_back = jax.vjp(_FUNCTIONS[name], jax.lax.optimization_barrier(x))
    return pull_back(gradient)


_activate.defvjp(_forward, _backward)
