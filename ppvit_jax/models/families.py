"""All model families behind one interface. To add one, declare FAMILY in a new file and list it in FAMILIES."""

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from ppvit_jax.errors import UserError
from ppvit_jax.models import clip, convmixer, deit, dinov2, dinov3, neuracrypt, pyramidnet, resnet, siglip, vit
from ppvit_jax.models.family import Family, Options, Stored
from ppvit_jax.models.model import Model, ModelConfig, Statistics, leaf
from ppvit_jax.models.position_embedding import resize_position_embedding

FAMILIES: tuple[Family[Any], ...] = (
    vit.FAMILY,
    deit.FAMILY,
    dinov2.FAMILY,
    dinov3.FAMILY,
    siglip.FAMILY,
    clip.FAMILY,
    convmixer.FAMILY,
    resnet.FAMILY,
    pyramidnet.FAMILY,
    neuracrypt.FAMILY,
)
# Options that a model's name does not fix, with their defaults: the fields of `config.model_options`. The default of
# the first family that has an option stands for the own default of each family.
OPTIONS: dict[str, str | int | float] = {}
for _family in FAMILIES:
    OPTIONS |= {name: value for name, value in _family.options.items() if name not in OPTIONS}


def parse_name(
    name: str,
    *,
    image_size: int,
    num_classes: int,
    representation_size: int | None = None,
    dtype: str = "float32",
    options: Options | None = None,
) -> ModelConfig:
    """Reads a model's name.

    Args:
      name: "ViT-B/16" (or "ViT-B_16"): size and patch size. "ConvMixer-256/8": width and depth. "ResNet-18".
        "PyramidNet-110/270": depth and widening, with ShakeDrop. "NeuraCrypt-2048/16": width and patch size of the
        encodings that it classifies.
      image_size: side of an image in pixels.
      num_classes: outputs of the head.
      representation_size: width of a ViT's `pre_logits` layer; see `ViTConfig`.
      dtype: compute dtype.
      options: the entries of OPTIONS that differ from their defaults.

    Returns:
      The model's shape, a configuration of one family.

    Raises:
      UserError: the name or an option is unknown, or the sizes do not fit each other.
    """
    chosen = {**OPTIONS, **(options or {})}
    if unknown := sorted(chosen.keys() - OPTIONS.keys()):
        raise UserError(f"unknown model option {', '.join(unknown)}: use one of {', '.join(OPTIONS)}")
    for family in FAMILIES:
        if match := re.fullmatch(family.pattern, name):
            fields: dict[str, Any] = {"image_size": image_size, "num_classes": num_classes, "dtype": dtype}
            fields |= {
                option: default if chosen[option] == OPTIONS[option] else chosen[option]
                for option, default in family.options.items()
            }
            if family.parse is not None:
                return family.parse(name, representation_size=representation_size, **fields)
            numbers = {field: int(digits) for field, digits in match.groupdict().items()}
            if 0 in numbers.values():
                raise UserError(f"unknown model {name!r}: its numbers begin at 1")
            return family.config(**numbers, **fields)
    *others, last = [family.names for family in FAMILIES]
    raise UserError(f"unknown model {name!r}: use {', '.join(others)} or {last}, e.g. ViT-B/16")


def family_of(config: ModelConfig) -> Family[Any]:
    """Returns the family that a model's shape belongs to."""
    return {family.config: family for family in FAMILIES}[type(config)]


def recognize(params: Mapping[str, Any]) -> Family[Any] | None:
    """Finds a model's family by the names of its parameters.

    Args:
      params: a nested tree, or arrays by their full names; part of a model is enough.

    Returns:
      The family with the most described names among the parameters (the first, if several have as many), or None if
      no family has any.
    """

    def count(family: Family[Any]) -> int:
        names = (family.patch_kernel, family.positions, family.mixing_matrix, *family.landmarks)
        return sum(leaf(params, name) is not None for name in names)

    best = max(FAMILIES, key=count)
    return best if count(best) else None


def infer_config(
    arrays: Mapping[str, np.ndarray],
    *,
    where: str,
    dtype: str = "float32",
    image_size: int = 0,
    options: Options | None = None,
) -> ModelConfig:
    """Infers the shape of a model from its checkpoint.

    Args:
      arrays: the parameters by name, such as "Transformer/encoderblock_0/LayerNorm_0/scale".
      where: the checkpoint's name, for messages.
      dtype: compute dtype to set.
      image_size, options: values from the checkpoint's metadata, for facts that the arrays do not show; see
        `recorded_options`.

    Returns:
      The model's shape; `num_classes` is 0 for a checkpoint without a head.

    Raises:
      UserError: the shape cannot be inferred for this family, an array is missing or has another rank, or the metadata
        lacks a field that is needed.
    """
    family = recognize(arrays) or FAMILIES[0]
    if family.infer is None:
        *others, last = [family.names for family in FAMILIES if family.infer is not None]
        readable = f"{', '.join(others)} or {last}"
        raise UserError(
            f"{where} is a {family.title}: its shape cannot be inferred from a checkpoint, and it cannot be adapted, "
            f"because {family.limits}; use {readable}"
        )
    return family.infer(Stored(arrays, where, dtype, image_size, options or {}))


def recorded_options(config: ModelConfig) -> dict[str, str | int | float]:
    """Returns the options that a checkpoint's metadata must record, except those at their defaults."""
    family = family_of(config)
    options = {name: getattr(config, name) for name in family.recorded}
    return {name: value for name, value in options.items() if value != family.options[name]}


def model_name(config: ModelConfig) -> str:
    """Returns the name that `parse_name` reads, such as "ViT-B/16"; "" for a shape that has none."""
    return family_of(config).name(config)


def build(config: ModelConfig) -> Model:
    """Builds a model of any family.

    Raises:
      UserError: the family has no model of this shape.
    """
    return family_of(config).build(config)


def input_shape(config: ModelConfig) -> tuple[int, ...]:
    """Returns the shape of one example: an image [image_size, image_size, 3], or an encoding of it."""
    return family_of(config).input_shape(config)


@functools.lru_cache(maxsize=32)
def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a model's parameters by name, such as "Transformer/encoder_norm/bias".

    Raises:
      UserError: see `build`.
    """
    arrays: dict[str, Any] = flatten_dict(_abstract(config, build(config).init), sep="/")
    return {name: array.shape for name, array in arrays.items()}


@functools.lru_cache(maxsize=32)
def abstract_statistics(config: ModelConfig) -> Statistics:
    """Returns the shapes and dtypes of a model's statistics, in a tree of the same structure.

    Raises:
      UserError: see `build`.
    """
    return _abstract(config, build(config).init_statistics)


def _abstract(config: ModelConfig, init: Callable[[jax.Array], dict[str, Any]]) -> dict[str, Any]:
    # JAX would warn if float64 were not enabled.
    with jax.enable_x64(config.dtype == "float64"):
        return jax.eval_shape(init, jax.random.key(0))


def unused_layers(config: ModelConfig, *, keep_head: bool) -> tuple[str, ...]:
    """Returns the prefixes of parameters, such as "head/", that a checkpoint may have and the model does not use."""
    family = family_of(config)
    names, optional = parameter_shapes(config), [f"{layer}/" for layer in family.optional]
    lacking = tuple(layer for layer in optional if not any(name.startswith(layer) for name in names))
    return (() if keep_head else family.heads) + lacking


def resize_positions(arrays: Mapping[str, np.ndarray], config: ModelConfig) -> dict[str, np.ndarray]:
    """Interpolates the position embedding among a checkpoint's arrays to the model's grid, if the grids differ.

    Rows of tokens before the patches that the checkpoint lacks are zeros, which add nothing.

    Raises:
      UserError: the embedding does not belong to a square grid.
    """
    family = family_of(config)
    embedding, wanted = arrays.get(family.positions), parameter_shapes(config).get(family.positions)
    if embedding is None or wanted is None or embedding.ndim != 3 or embedding.shape == wanted:
        return dict(arrays)
    prefix = family.prefix_rows(wanted[1])
    grid = math.isqrt(wanted[1] - prefix)
    if family.resize is not None:
        return {**arrays, family.positions: family.resize(embedding, grid)}
    interpolation = family.interpolation(config)
    lacking = prefix - family.prefix_rows(embedding.shape[1])
    if lacking > 0:
        embedding = np.pad(embedding, ((0, 0), (lacking, 0), (0, 0)))
    resized = resize_position_embedding(embedding, grid, prefix_tokens=prefix, interpolation=interpolation)
    return {**arrays, family.positions: resized}
