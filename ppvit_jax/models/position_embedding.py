"""Interpolation of position embeddings from one square grid to another."""

import chex
import numpy as np

from ppvit_jax.errors import UserError

# Ways of interpolation:
#   linear: `scipy.ndimage.zoom` of order 1, as in `interpolate_posembed` of google-research/vision_transformer. It
#     keeps the corners in place.
#   cubic: PyTorch's `interpolate` with mode="bicubic" and align_corners=False.
#   cubic_antialias: the same with antialias=True. Its kernel is another one, also for a larger grid.
INTERPOLATIONS = ("linear", "cubic", "cubic_antialias")


def resize_position_embedding(
    position_embedding: np.ndarray, grid_size: int, *, prefix_tokens: int, interpolation: str = "linear"
) -> np.ndarray:
    """Interpolates a position embedding to another grid, as the original code of its model does.

    Args:
      position_embedding: [1, prefix_tokens + old_grid**2, hidden_size].
      grid_size: patches along one side of the new image.
      prefix_tokens: number of leading rows for tokens that are not patches, such as the class token.
      interpolation: one of INTERPOLATIONS.

    Returns:
      [1, prefix_tokens + grid_size**2, hidden_size] in the same dtype; the first `prefix_tokens` rows are unchanged.

    Raises:
      UserError: the rows after the prefix tokens do not form a square grid.
    """
    position_embedding = np.asarray(position_embedding)
    chex.assert_rank(position_embedding, 3)
    count = position_embedding.shape[1] - prefix_tokens
    old_grid = round(max(count, 0) ** 0.5)
    if old_grid**2 != count or count < 1:
        tokens = {0: "", 1: "a class token and "}.get(prefix_tokens, f"{prefix_tokens} tokens and ")
        raise UserError(
            f"a position embedding of {position_embedding.shape[1]} rows is not {tokens}a square grid: "
            "use a checkpoint of another model (this one has no class token, or its grid is not square)"
        )
    if old_grid == grid_size:
        return position_embedding
    prefix, grid = position_embedding[:, :prefix_tokens], position_embedding[0, prefix_tokens:]
    grid = grid.reshape(old_grid, old_grid, -1)
    # Computed in at least float32, because scipy has no bfloat16.
    precise = grid.astype(np.promote_types(grid.dtype, np.float32))
    if interpolation == "linear":
        import scipy.ndimage  # Takes 0.2 s to import, which models of their own size need not pay.

        zoom = grid_size / old_grid
        resized = np.asarray(scipy.ndimage.zoom(precise, (zoom, zoom, 1), order=1))
    else:
        weights = _cubic_weights(old_grid, grid_size, antialias=interpolation == "cubic_antialias")
        # Along the columns, and then along the rows.
        resized = np.tensordot(weights, np.tensordot(weights, precise, (1, 1)), (1, 1))
    resized = resized.reshape(1, grid_size**2, -1).astype(position_embedding.dtype)
    return np.concatenate([prefix, resized], axis=1)


def _cubic_weights(old: int, new: int, *, antialias: bool) -> np.ndarray:
    """Returns the weights [new, old] of the old values in each new one, of which each row's sum is 1.

    Reference: aten/src/ATen/native/UpSample.h and cpu/UpSampleKernel.cpp of PyTorch.
    """
    scale = old / new
    # A kernel that is as wide as a new value averages over the old ones.
    width = max(scale, 1.0) if antialias else 1.0
    centers = (np.arange(new) + 0.5) * scale - 0.5
    reach = int(np.ceil(2 * width)) + 1
    # Places outside of the grid count for the nearest one inside, or are left out with antialiasing.
    places = np.arange(-reach, old + reach)
    kernel = _cubic((places - centers[:, None]) / width, -0.5 if antialias else -0.75)
    if antialias:
        kernel = kernel[:, reach:-reach]
        return kernel / kernel.sum(1, keepdims=True)
    return kernel @ np.eye(old)[places.clip(0, old - 1)]


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Computes the cubic convolution kernel of R. Keys (IEEE Trans. ASSP 29, 1981) with the parameter a."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
