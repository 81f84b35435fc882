"""Converts a checkpoint of big_vision (`.npz`) to Google's `.npz` layout, that of vision_transformer.

Command:  python -m checkpoints_convert.big_vision_to_npz big_vision.npz ViT-B_16.npz

The names are those of big_vision/models/vit.py, with the blocks one by one or stacked (`scan=True`). big_vision adds
the position embedding before it puts the class token in front, so the class token's row becomes zero. The layout has
no place for models that pool without a class token (`gap`, `map`).
"""

import argparse
import re

import numpy as np

from checkpoints_convert import command, record
from ppvit_jax import checkpoint
from ppvit_jax.errors import UserError

_RENAMED = (
    ("LayerNorm_1", "LayerNorm_2"),
    ("MlpBlock_0", "MlpBlock_3"),
    ("MultiHeadDotProductAttention_0", "MultiHeadDotProductAttention_1"),
)


def convert(arguments: argparse.Namespace) -> None:
    """Reads `arguments.source` and writes `arguments.target`.

    Raises:
      UserError: a file cannot be read or written, or holds another kind of model.
    """
    where = str(arguments.source)
    arrays, metadata = checkpoint.read(arguments.source)
    # A model of images and texts has an image tower, which is converted alone.
    if any(name.startswith("img/") for name in arrays):
        arrays = {name.removeprefix("img/"): array for name, array in arrays.items() if name.startswith("img/")}
    if any("MAPHead" in name for name in arrays):
        raise UserError(f"{where} pools by an attention head ('map'): Google's layout needs a class token")
    if "pos_embedding" not in arrays or arrays["pos_embedding"].ndim != 3:
        raise UserError(f"{where} is not a Vision Transformer of big_vision with a learned position embedding")
    if "cls" not in arrays:
        raise UserError(f"{where} has no class token, since it pools by 'gap': Google's layout needs a class token")
    embedding = arrays.pop("pos_embedding")
    converted = {
        "Transformer/posembed_input/pos_embedding": np.concatenate([np.zeros_like(embedding[:, :1]), embedding], axis=1)
    }
    for name, array in arrays.items():
        stacked = re.fullmatch(r"Transformer/encoderblock/(.+)", name)
        single = re.fullmatch(r"(Transformer/encoderblock_\d+)/(.+)", name)
        if stacked:
            for number, part in enumerate(array):
                converted[f"Transformer/encoderblock_{number}/{_rename(stacked[1])}"] = part
        elif single:
            converted[f"{single[1]}/{_rename(single[2])}"] = array
        else:
            converted[name] = array
    num_classes = command.check_complete(converted, where).num_classes
    metadata = record.apply_options(metadata, arguments, num_classes=num_classes, where=where)
    command.write_npz(arguments.target, converted, metadata, where=where)


def _rename(name: str) -> str:
    for theirs, google in _RENAMED:
        name = re.sub(f"^{theirs}/", f"{google}/", name)
    return name


CONVERTER = command.Converter(
    name="big_vision_to_npz",
    description="Converts a Vision Transformer of big_vision to a checkpoint in Google's .npz layout.",
    source="checkpoint of big_vision, a .npz",
    target="checkpoint to write in Google's layout, a .npz that is new",
    example="big_vision.npz ViT-B_16.npz",
    convert=convert,
    add_options=record.add_options,
)

if __name__ == "__main__":
    command.main(CONVERTER)
