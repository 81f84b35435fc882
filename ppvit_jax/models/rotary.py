"""Rotary positions of patches: angles of a grid, and the rotation of queries and keys."""

import jax
import jax.numpy as jnp
import numpy as np

from ppvit_jax.models.target import Target


def grid_angles(grid_size: int, head_size: int, base: float) -> np.ndarray:
    """Returns the angles of the patches of a square grid.

    A patch's center (y, x) has coordinates from -1 to 1. With f_j = base^(-4 j / head_size), the angles are 2 pi y f_j
    for j from 0 to head_size / 4 - 1, and then 2 pi x f_j. Reference: DINOv3ViTRopePositionEmbedding of transformers.

    Args:
      grid_size: patches along one side.
      head_size: values of a head, a multiple of 4.
      base: base of the frequencies.

    Returns:
      float32 [grid_size**2, head_size / 2].
    """
    centers = 2 * (np.arange(grid_size) + 0.5) / grid_size - 1
    centers = np.stack(np.meshgrid(centers, centers, indexing="ij"), -1).reshape(-1, 2, 1)
    frequencies = base ** -np.arange(0, 1, 4 / head_size)
    return (2 * np.pi * centers * frequencies).reshape(grid_size**2, -1).astype(np.float32)


def rotate(x: jax.Array, angles: jax.Array, target: Target) -> jax.Array:
    """Rotates pairs of values by the angles of their token: (a cos t - b sin t, b cos t + a sin t).

    Args:
      x: [batch, tokens, heads, values]; a value and the one half of a head later are a pair.
      angles: [tokens, values / 2], or [batch, tokens, values / 2] if the images have different tokens.
      target: the devices to compile for.

    Returns:
      An array like `x`.
    """
    cos, sin = (function(target.gather(angles))[..., None, :].astype(x.dtype) for function in (jnp.cos, jnp.sin))
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
