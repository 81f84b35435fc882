"""Models in checkpoints as parameter trees, and their logits: for the Python interface of the package."""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ppvit_jax import checkpoint, models
from ppvit_jax.data.preprocess import normalize_images
from ppvit_jax.errors import UserError


def load_checkpoint(path: str | os.PathLike) -> tuple[models.Params, checkpoint.Metadata]:
    """Reads a checkpoint in Google's `.npz` layout.

    Args:
      path: the file; "embedded" is the small model in the package.

    Returns:
      The parameters, a nested dict of numpy arrays, with the statistics of a model that has any under "statistics";
      and the metadata, such as the fingerprint of the key to which the model is adapted.

    Raises:
      UserError: the file is missing, truncated, damaged or not a `.npz` file.
    """
    arrays, metadata = checkpoint.read(checkpoint.resolve(os.fspath(path)))
    return unflatten_dict(arrays, sep="/"), metadata


def compute_logits(
    params: models.Params, images: jax.Array | np.ndarray, metadata: checkpoint.Metadata | None = None
) -> jax.Array:
    """Computes the logits of a model for images, which are normalized to x / 127.5 - 1.

    Args:
      params: from `load_checkpoint`, perhaps adapted; the shape of the model is read off them.
      images: uint8 [n, size, size, 3], encrypted for an adapted model, of the size that the model takes.
      metadata: from `load_checkpoint`, for the models whose parameters do not tell their whole shape.

    Returns:
      float32 [n, classes].

    Raises:
      UserError: the parameters are not those of a whole model with a head.
    """
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    arrays, statistics = checkpoint.split(flat)
    options = metadata.model_options if metadata else None
    config = models.infer_config(arrays, where="the model", image_size=images.shape[1], options=options)
    if not config.num_classes:
        raise UserError("the model has no head, so that it has no logits: fine-tune it first")
    normalized = normalize_images(images, (0.5,) * 3, (0.5,) * 3, "float32")
    return _compile(config)(unflatten_dict(arrays, sep="/"), normalized, statistics)


@functools.lru_cache(maxsize=8)
def _compile(config: models.ModelConfig) -> Callable[..., jax.Array]:
    return jax.jit(models.build(config).apply)
