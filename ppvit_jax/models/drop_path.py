"""Stochastic depth (arXiv 1603.09382): in training, residual branches are left out for some images."""

import jax
import jax.numpy as jnp
import numpy as np

# Each encoder block adds two branches to the residual stream: attention and MLP.
_BRANCHES = 2


def drop_rates(rate: float, layers: int) -> list[float]:
    """Returns the rate of each block: 0 in the first, `rate` in the last, and linear between them, as in timm."""
    return np.linspace(0, rate, layers).tolist()


def branch_factors(rng: jax.Array, rate: float, layers: int, batch: int) -> jax.Array:
    """Draws the factors by which branches are multiplied: 0, or 1 / (1 - rate of the block), whose mean is 1.

    Args:
      rng: the random key. The factors depend on nothing else, so that a plain and an encrypted run drop the same
        branches.
      rate: rate of the last block; see `drop_rates`.
      layers: number of blocks.
      batch: number of images.

    Returns:
      [layers, 2, batch], floating point.
    """
    keep = 1 - np.reshape(drop_rates(rate, layers), (layers, 1, 1))
    return jax.random.bernoulli(rng, keep, (layers, _BRANCHES, batch)) / jnp.asarray(keep)


def rows_of_examples(factors: jax.Array, stream: jax.Array) -> jax.Array:
    """Repeats factors for the tokens of each image.

    Args:
      factors: [..., batch].
      stream: the residual stream, [batch * tokens, hidden] or [batch, tokens, hidden].

    Returns:
      [..., batch * tokens, 1] or [..., batch, 1, 1].
    """
    factors = factors.astype(stream.dtype)
    if stream.ndim == 3:
        return factors[..., None, None]
    *outer, batch = factors.shape
    repeated = jnp.broadcast_to(factors[..., None], (*factors.shape, len(stream) // batch))
    return repeated.reshape(*outer, -1, 1)
