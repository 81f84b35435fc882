"""Attack on a variant of the encryption: a secret orthogonal matrix Q in place of a permutation.

In this variant, patches x [values] become x @ Q, and the patch embedding E [values, hidden] becomes Q.T @ E, so that
x @ Q @ Q.T @ E = x @ E. It is no more secure: anyone who has both patch embeddings, or some patches and their
encryptions, finds Q in closed form (Schönemann, "A generalized solution of the orthogonal Procrustes problem", 1966).
"""

import numpy as np

from ppvit_jax.errors import UserError


def procrustes(base_kernel: np.ndarray, model_kernel: np.ndarray) -> np.ndarray:
    """Recovers Q from the patch embeddings of the base and of the adapted model.

    Args:
      base_kernel: float [patch, patch, 3, hidden] or [values, hidden], the base model's patch embedding.
      model_kernel: the adapted model's patch embedding in the same shape, fine-tuned or not.

    Returns:
      float64 [values, values], the orthogonal matrix for which Q.T @ base is closest to the model. If the rank of the
      base is less than the number of values, Q is only determined on the span of its columns.

    Raises:
      UserError: the shapes differ.
    """
    hidden = base_kernel.shape[-1]
    if base_kernel.shape != model_kernel.shape:
        raise UserError(
            f"patch embeddings have shapes {base_kernel.shape} and {model_kernel.shape}: give models of the same size"
        )
    return from_pairs(base_kernel.reshape(-1, hidden).T, model_kernel.reshape(-1, hidden).T)


def from_pairs(plain_patches: np.ndarray, encrypted_patches: np.ndarray) -> np.ndarray:
    """Recovers Q from patches and their encryptions.

    Args:
      plain_patches: float [pairs, values]. Q is only determined on their span.
      encrypted_patches: float [pairs, values], plain_patches @ Q with or without noise.

    Returns:
      float64 [values, values], the orthogonal matrix for which plain_patches @ Q is closest to the encryptions.

    Raises:
      UserError: the shapes differ.
    """
    if plain_patches.ndim != 2 or plain_patches.shape != encrypted_patches.shape:
        raise UserError(
            f"patches have shape {plain_patches.shape} and encryptions {encrypted_patches.shape}: give them in pairs"
        )
    left, _, right = np.linalg.svd(plain_patches.astype(np.float64).T @ encrypted_patches.astype(np.float64))
    return left @ right
