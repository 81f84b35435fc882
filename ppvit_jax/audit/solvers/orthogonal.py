"""Why a secret orthogonal matrix in place of a permutation is no way out.

The variant: patches x [values] become x @ Q, and the patch embedding E [values, hidden] becomes Q.T @ E, so that
x @ Q @ Q.T @ E = x @ E. Whoever has both patch embeddings, or some patches and their encryptions, finds Q in closed
form (Schönemann, "A generalized solution of the orthogonal Procrustes problem", 1966).
"""

import numpy as np

from ppvit_jax.errors import UserError


def procrustes(base_kernel: np.ndarray, model_kernel: np.ndarray) -> np.ndarray:
    """Recovers Q from the patch embeddings of the base and of the adapted model.

    Args:
      base_kernel: float [patch, patch, 3, hidden] or [values, hidden].
      model_kernel: of the same shape, tuned or not.

    Returns:
      float64 [values, values], the orthogonal matrix for which Q.T @ base is closest to the model. Where the base has a
      rank below its number of values, only what patches have in the span of its columns is certain.

    Raises:
      UserError: shapes that differ.
    """
    hidden = base_kernel.shape[-1]
    if base_kernel.shape != model_kernel.shape:
        raise UserError(
            f"patch embeddings of {base_kernel.shape} and {model_kernel.shape}: give models of the same size"
        )
    return from_pairs(base_kernel.reshape(-1, hidden).T, model_kernel.reshape(-1, hidden).T)


def from_pairs(plain_patches: np.ndarray, encrypted_patches: np.ndarray) -> np.ndarray:
    """Recovers Q from patches and their encryptions.

    Args:
      plain_patches: float [pairs, values]. What none of them spans stays unknown.
      encrypted_patches: float [pairs, values], plain_patches @ Q with or without noise.

    Returns:
      float64 [values, values], the orthogonal matrix for which plain_patches @ Q is closest to the encryptions.

    Raises:
      UserError: shapes that differ.
    """
    if plain_patches.ndim != 2 or plain_patches.shape != encrypted_patches.shape:
        raise UserError(f"{plain_patches.shape} patches and {encrypted_patches.shape} encryptions: give them in pairs")
    left, _, right = np.linalg.svd(plain_patches.astype(np.float64).T @ encrypted_patches.astype(np.float64))
    return left @ right
