"""Dropping of patch tokens in training (PatchDropout, arXiv 2208.07220)."""

import jax
import jax.numpy as jnp


def keep_patches(tokens: jax.Array, kept: jax.Array, prefix: int, patches: int) -> jax.Array:
    """Returns the tokens without the patches that are dropped.

    Args:
      tokens: [batch, all tokens, features], or [all tokens, features] for features that all images share: the tokens
        before the patches, the patches, then rows of padding.
      kept: int32 [batch, patches to keep], the numbers of the patches to keep, each at most once.
      prefix: number of tokens before the patches.
      patches: number of patches.

    Returns:
      [batch, prefix + patches to keep + padding, features].
    """
    before = jnp.arange(prefix)
    after = jnp.arange(prefix + patches, tokens.shape[-2])
    outer = [jnp.broadcast_to(numbers, (len(kept), len(numbers))) for numbers in (before, after)]
    index = jnp.concatenate([outer[0], prefix + kept, outer[1]], axis=1)
    if tokens.ndim == 2:
        return tokens[index]
    return jnp.take_along_axis(tokens, index[..., None], axis=1, mode="clip")
