"""Converts a folder of Hugging Face's Vision Transformers to our `.npz` layout, which is Google's for a ViT.

Command:  python -m checkpoints_convert.hf_to_npz FOLDER checkpoint.npz

FOLDER holds config.json and model.safetensors, its shards and their index, or pytorch_model.bin. A pooler, which only
`ViTModel` has, becomes `pre_logits`: it is the same layer, between class token and head. The checkpoint records the
activation and epsilon of config.json, its class names, and the normalization and resizing of preprocessor_config.json.
These decide over the field `ppvit` that a former export left.
"""

import argparse

from checkpoints_convert import command, from_hugging_face, record
from checkpoints_convert.converted import Choices


def convert(arguments: argparse.Namespace) -> None:
    """Reads the folder `arguments.source` and writes `arguments.target`.

    Raises:
      UserError: the folder cannot be read, or holds another kind of model.
    """
    where = str(arguments.source)
    model = from_hugging_face.read(arguments.source, Choices(arguments.weights))
    metadata = record.apply_options(model.metadata, arguments, num_classes=model.shape.num_classes, where=where)
    command.write_npz(arguments.target, model.arrays, metadata, where=where)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --weights and the options of the record."""
    command.add_weights(parser)
    record.add_options(parser)


CONVERTER = command.Converter(
    name="hf_to_npz",
    description="Converts a Vision Transformer of Hugging Face to a checkpoint in Google's .npz layout.",
    source="folder with config.json and model.safetensors or pytorch_model.bin",
    target="checkpoint to write in Google's layout, a .npz that is new",
    example="vit-base-patch16-224-in21k ViT-B_16.npz",
    convert=convert,
    add_options=add_arguments,
)

if __name__ == "__main__":
    command.main(CONVERTER)
