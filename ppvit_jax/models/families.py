"""All families of models under one name: a new one is a file that declares its FAMILY, and a place in the tuple."""

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from ppvit_jax.errors import UserError
from ppvit_jax.models import convmixer, neuracrypt, pyramidnet, resnet, vit
from ppvit_jax.models.family import Family, Options, Stored
from ppvit_jax.models.model import Model, ModelConfig, Statistics, leaf
from ppvit_jax.models.position_embedding import resize_position_embedding

FAMILIES: tuple[Family[Any], ...] = (
    vit.FAMILY,
    convmixer.FAMILY,
    resnet.FAMILY,
    pyramidnet.FAMILY,
    neuracrypt.FAMILY,
)
# Options that a model's name leaves open, with their defaults: `config.model_options`.
OPTIONS: dict[str, str | int] = {name: value for family in FAMILIES for name, value in family.options.items()}


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
      name: "ViT-B/16" (or "ViT-B_16"); "ConvMixer-256/8", width and depth; "ResNet-18"; "PyramidNet-110/270", depth
        and widening, with ShakeDrop; "NeuraCrypt-2048/16", the classifier of encodings of this width and patch.
      image_size: side of an image in pixels.
      num_classes: outputs of the head.
      representation_size: of a ViT; see `ViTConfig`.
      dtype: the compute dtype.
      options: those of OPTIONS that differ.

    Returns:
      The configuration of one family.

    Raises:
      UserError: an unknown name or option, or sizes that do not fit.
    """
    chosen = {**OPTIONS, **(options or {})}
    if unknown := sorted(chosen.keys() - OPTIONS.keys()):
        raise UserError(f"unknown model option {', '.join(unknown)}: use one of {', '.join(OPTIONS)}")
    for family in FAMILIES:
        if match := re.fullmatch(family.pattern, name):
            fields: dict[str, Any] = {"image_size": image_size, "num_classes": num_classes, "dtype": dtype}
            fields |= {option: chosen[option] for option in family.options}
            if family.parse is not None:
                return family.parse(name, representation_size=representation_size, **fields)
            numbers = {field: int(digits) for field, digits in match.groupdict().items()}
            if 0 in numbers.values():
                raise UserError(f"unknown model {name!r}: its numbers begin at 1")
            return family.config(**numbers, **fields)
    *others, last = [family.names for family in FAMILIES]
    raise UserError(f"unknown model {name!r}: use {', '.join(others)} or {last}, e.g. ViT-B/16")


def family_of(config: ModelConfig) -> Family[Any]:
    """Returns the family of a model's shape."""
    return {family.config: family for family in FAMILIES}[type(config)]


def recognize(params: Mapping[str, Any]) -> Family[Any] | None:
    """Finds the family of a model by the names of its parameters.

    Args:
      params: a nested tree, of a part of a model too, or arrays by their full names.

    Returns:
      The family that has most of its described names among them, of several the first; None if none has any.
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
    """Reads the shape of a model off its checkpoint.

    Args:
      arrays: by name, such as "Transformer/encoderblock_0/LayerNorm_0/scale".
      where: the checkpoint's name, for messages.
      dtype: the compute dtype to set.
      image_size, options: what the checkpoint's metadata says, for what arrays cannot tell; see `recorded_options`.

    Returns:
      The configuration of one family; `num_classes` is 0 for a checkpoint without a head.

    Raises:
      UserError: the family's checkpoints do not tell the shape, or this one does not: an array is missing or of another
        rank, or the metadata lacks what is needed.
    """
    family = recognize(arrays) or FAMILIES[0]
    if family.infer is None:
        readable = " or ".join(family.names for family in FAMILIES if family.infer is not None)
        raise UserError(
            f"{where} is a {family.title}, whose shape cannot be read off a checkpoint, and to which no encryption can "
            f"be adapted, for {family.limits}: use {readable}"
        )
    return family.infer(Stored(arrays, where, dtype, image_size, options or {}))


def recorded_options(config: ModelConfig) -> dict[str, str | int]:
    """Returns the options that a checkpoint's metadata must keep, those at their defaults left out."""
    family = family_of(config)
    options = {name: getattr(config, name) for name in family.recorded}
    return {name: value for name, value in options.items() if value != family.options[name]}


def model_name(config: ModelConfig) -> str:
    """Returns the name that `parse_name` reads, such as "ViT-B/16"; "" for a shape that has none."""
    return family_of(config).name(config)


def build(config: ModelConfig) -> Model:
    """Returns the functions of a model of any family.

    Raises:
      UserError: a shape that the family cannot have.
    """
    return family_of(config).build(config)


def input_shape(config: ModelConfig) -> tuple[int, ...]:
    """Returns the shape of one example: an image [image_size, image_size, 3], or an encoding of it."""
    return family_of(config).input_shape(config)


@functools.lru_cache(maxsize=32)
def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a model's parameters, by name ("Transformer/encoder_norm/bias").

    Raises:
      UserError: see `build`.
    """
    arrays: dict[str, Any] = flatten_dict(_abstract(config, build(config).init), sep="/")
    return {name: array.shape for name, array in arrays.items()}


def abstract_statistics(config: ModelConfig) -> Statistics:
    """Returns shapes and dtypes in place of a model's statistics.

    Raises:
      UserError: see `build`.
    """
    return _abstract(config, build(config).init_statistics)


def _abstract(config: ModelConfig, init: Callable[[jax.Array], dict[str, Any]]) -> dict[str, Any]:
    # Where float64 is not enabled, JAX would warn.
    with jax.enable_x64(config.dtype == "float64"):
        return jax.eval_shape(init, jax.random.key(0))


def unused_layers(config: ModelConfig, *, keep_head: bool) -> tuple[str, ...]:
    """Returns beginnings of names, such as "head/", of what a checkpoint may have and the model does not take of it."""
    family = family_of(config)
    lacking = [
        layer for layer in family.optional if not any(name.startswith(f"{layer}/") for name in parameter_shapes(config))
    ]
    return tuple(f"{layer}/" for layer in ([] if keep_head else [family.head]) + lacking)


def resize_positions(arrays: Mapping[str, np.ndarray], config: ModelConfig) -> dict[str, np.ndarray]:
    """Interpolates the position embedding among a checkpoint's arrays to the model's grid, where it is of another one.

    Raises:
      UserError: it is not of a square grid.
    """
    family = family_of(config)
    embedding, wanted = arrays.get(family.positions), parameter_shapes(config).get(family.positions)
    if embedding is None or wanted is None or embedding.ndim != 3 or embedding.shape == wanted:
        return dict(arrays)
    prefix = family.prefix_tokens
    resized = resize_position_embedding(embedding, math.isqrt(wanted[1] - prefix), prefix_tokens=prefix)
    return {**arrays, family.positions: resized}
