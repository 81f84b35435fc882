"""Interpolation of position embeddings from one square grid to another."""

import chex
import numpy as np

from ppvit_jax.errors import UserError


def resize_position_embedding(position_embedding: np.ndarray, grid_size: int, *, prefix_tokens: int) -> np.ndarray:
    """Interpolates a position embedding to another grid, as the original code of ViT does.

    Args:
      position_embedding: [1, prefix_tokens + old_grid**2, hidden_size].
      grid_size: patches along one side of the new image.
      prefix_tokens: number of leading rows for tokens that are not patches, such as the class token.

    Returns:
      [1, prefix_tokens + grid_size**2, hidden_size] in the same dtype; the first `prefix_tokens` rows are unchanged.
      The interpolation is `scipy.ndimage.zoom` of order 1, as in `interpolate_posembed` of
      google-research/vision_transformer; it keeps the corners in place.

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
    import scipy.ndimage  # Takes 0.2 s to import, which models of their own size need not pay.

    prefix, grid = position_embedding[:, :prefix_tokens], position_embedding[0, prefix_tokens:]
    grid = grid.reshape(old_grid, old_grid, -1)
    zoom = grid_size / old_grid
    # Computed in at least float32, because scipy has no bfloat16.
    precise = grid.astype(np.promote_types(grid.dtype, np.float32))
    resized = np.asarray(scipy.ndimage.zoom(precise, (zoom, zoom, 1), order=1))
    resized = resized.reshape(1, grid_size**2, -1).astype(position_embedding.dtype)
    return np.concatenate([prefix, resized], axis=1)
