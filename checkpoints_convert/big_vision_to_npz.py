"""Converts a checkpoint of big_vision (`.npz`) to our `.npz` layout, which is vision_transformer's for a ViT.

Command:  python -m checkpoints_convert.big_vision_to_npz big_vision.npz ViT-B_16.npz

The names are those of big_vision/models/vit.py, with the blocks one by one or stacked (`scan=True`). Models that pool
by the class token (`tok`) become a ViT, and the image tower of a SigLIP, which pools by attention (`map`), a SigLIP.
There is no place for models that pool by the mean of a ViT's tokens (`gap`).
"""

import argparse

from checkpoints_convert import big_vision, command, record
from ppvit_jax import checkpoint


def convert(arguments: argparse.Namespace) -> None:
    """Reads `arguments.source` and writes `arguments.target`.

    Raises:
      UserError: a file cannot be read or written, or holds another kind of model.
    """
    where = str(arguments.source)
    arrays, metadata = checkpoint.read(arguments.source)
    converted = big_vision.convert(arrays, where)
    num_classes = command.check_complete(converted, where).num_classes
    metadata = record.apply_options(metadata, arguments, num_classes=num_classes, where=where)
    command.write_npz(arguments.target, converted, metadata, where=where)


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
