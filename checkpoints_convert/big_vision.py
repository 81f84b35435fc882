"""Models of big_vision: its names of a Vision Transformer's arrays, in our layout."""

import dataclasses
import re
from collections.abc import Iterable

import numpy as np

from ppvit_jax.checkpoint import Metadata
from ppvit_jax.checkpoint.metadata import STANDARD
from ppvit_jax.errors import UserError

_RENAMED = (
    ("LayerNorm_1", "LayerNorm_2"),
    ("MlpBlock_0", "MlpBlock_3"),
    ("MultiHeadDotProductAttention_0", "MultiHeadDotProductAttention_1"),
)
# The image tower of a model of images and texts.
_TOWER = "img/"
_ORIGIN = "big_vision"


def is_theirs(names: Iterable[str]) -> bool:
    """Returns True if arrays have the names of big_vision, of one tower or of a model of images and texts."""
    own = {name.removeprefix(_TOWER) for name in names}
    return "pos_embedding" in own and any(
        re.match(r"Transformer/encoderblock(/|_\d+/(LayerNorm_1|MlpBlock_0)/)", name) for name in own
    )


def skipped(skip: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the prefixes of names that need not be read of a file that may be big_vision's."""
    return (*skip, *(f"{_TOWER}{prefix}" for prefix in skip), "txt/") if skip else ("txt/",)


def to_ours(arrays: dict[str, np.ndarray], metadata: Metadata, where: str) -> tuple[dict[str, np.ndarray], Metadata]:
    """Converts the arrays of a model of big_vision to our layout; those of another program are returned as they are.

    big_vision adds the position embedding before it puts the class token in front, so the class token's row becomes
    zero.

    Args:
      arrays: the arrays by name.
      metadata: the record of the file.
      where: the file's name, for messages.

    Raises:
      UserError: the model pools its tokens in a way that no family of ours does.
    """
    if not is_theirs(arrays):
        return arrays, metadata
    return convert(arrays, where), complete(metadata)


def complete(metadata: Metadata) -> Metadata:
    """Returns the record of a model of big_vision, whose images have mean and standard deviation 0.5."""
    if metadata.mean or metadata.origin:
        return metadata
    return dataclasses.replace(metadata, mean=STANDARD, std=STANDARD, origin=_ORIGIN)


def convert(arrays: dict[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """Converts the arrays of a model of big_vision to our layout; see `to_ours`.

    Raises:
      UserError: the arrays are those of another model, or it pools its tokens in a way that no family of ours does.
    """
    # A model of images and texts has an image tower, which is converted alone.
    if any(name.startswith(_TOWER) for name in arrays):
        arrays = {name.removeprefix(_TOWER): array for name, array in arrays.items() if name.startswith(_TOWER)}
    pools_by_attention = any("MAPHead" in name for name in arrays)
    if pools_by_attention and "cls" in arrays:
        raise UserError(f"{where} pools by an attention head ('map') beside a class token: no family does both")
    if "pos_embedding" not in arrays or arrays["pos_embedding"].ndim != 3:
        raise UserError(f"{where} is not a Vision Transformer of big_vision with a learned position embedding")
    if "cls" not in arrays and not pools_by_attention:
        raise UserError(f"{where} has no class token, since it pools by 'gap': Google's layout needs a class token")
    converted = {}
    for name, array in arrays.items():
        stacked = re.fullmatch(r"Transformer/encoderblock/(.+)", name)
        single = re.fullmatch(r"(Transformer/encoderblock_\d+)/(.+)", name)
        if stacked:
            for number, part in enumerate(array):
                converted[f"Transformer/encoderblock_{number}/{_rename(stacked[1])}"] = part
        elif single:
            converted[f"{single[1]}/{_rename(single[2])}"] = array
        elif name == "pos_embedding" and not pools_by_attention:
            converted["Transformer/posembed_input/pos_embedding"] = np.concatenate(
                [np.zeros_like(array[:, :1]), array], axis=1
            )
        else:
            converted[name] = array
    return converted


def _rename(name: str) -> str:
    for theirs, google in _RENAMED:
        name = re.sub(f"^{theirs}/", f"{google}/", name)
    return name
