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
from ppvit_jax.training.compiler import fix_precision
from ppvit_jax.training.merging import merge


def load_checkpoint(path: str | os.PathLike, base: str | os.PathLike = "") -> tuple[models.Params, checkpoint.Metadata]:
    """Reads a checkpoint in Google's `.npz` layout, or as timm, Hugging Face or big_vision publishes it.

    Args:
      path: the file or folder; "embedded" is the small model in the package.
      base: for a delta, the checkpoint that it was made from; "" for a whole model.

    Returns:
      The parameters, a nested dict of numpy arrays, with the statistics of a model that has any under "statistics";
      and the metadata, such as the class names, the normalization, and the fingerprint of the key to which the model is
      adapted.

    Raises:
      UserError: the file is missing, truncated, damaged, of another kind of model, or no delta of the base.
    """
    file = checkpoint.resolve(os.fspath(path))
    if base:
        merged = merge(file, checkpoint.resolve(os.fspath(base)))
        if merged.is_plain:
            raise UserError(f"{file} is a delta of an adapted model, and {base} is plain: give the adapted model")
        return merged.params, merged.metadata
    arrays, metadata = checkpoint.open_checkpoint(file)
    return unflatten_dict(arrays, sep="/"), checkpoint.complete_record(file, metadata)


def compute_logits(
    params: models.Params, images: jax.Array | np.ndarray, metadata: checkpoint.Metadata | None = None
) -> jax.Array:
    """Computes the logits of a model for images.

    Images are normalized as the metadata records, and by mean and standard deviation 0.5 without metadata. Images that
    are encrypted are always normalized by 0.5 for a model that `ppvit adapt` has adapted. In Python,
    `fold_normalization` rewrites a model for 0.5 before `adapt`. Products are in float32 on every device.

    Args:
      params: from `load_checkpoint`, perhaps adapted; the shape of the model is read off them.
      images: uint8 [n, size, size, 3], encrypted for an adapted model, of the size that the model takes.
      metadata: from `load_checkpoint`: the normalization, and the options of models whose parameters do not tell their
        whole shape.

    Returns:
      float32 [n, classes]. `metadata.class_names` has the names of the classes, if they are recorded.

    Raises:
      UserError: the parameters are not those of a whole model with a head, the metadata does not fit them, or the
        images have another shape or range than the model takes.
    """
    metadata = metadata or checkpoint.Metadata()
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    arrays, statistics = checkpoint.split(flat)
    checkpoint.check_record("the model", metadata, arrays)
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[3] != 3:
        raise UserError(f"the images have the shape {shape}: give [n, size, size, 3]")
    if np.issubdtype(images.dtype, np.floating) and images.size and float(images.max()) <= 1:
        raise UserError(f"the images are {images.dtype} of at most 1: give values from 0 to 255, such as uint8")
    config = models.infer_config(
        arrays, where="the model", image_size=metadata.image_size or shape[1], options=metadata.model_options
    )
    if not config.num_classes:
        raise UserError("the model has no head, so that it has no logits: fine-tune it first")
    size = config.image_size
    if shape[1:3] != (size, size):
        raise UserError(f"the images have {shape[1]}x{shape[2]} pixels, but the model takes {size}x{size}: resize them")
    normalized = normalize_images(images, *metadata.normalization, "float32")
    return _compile(config)(unflatten_dict(arrays, sep="/"), normalized, statistics)


@functools.lru_cache(maxsize=8)
def _compile(config: models.ModelConfig) -> Callable[..., jax.Array]:
    return jax.jit(fix_precision(models.build(config).apply, config.dtype))
