"""Converts a Vision Transformer of timm (safetensors or PyTorch) to Google's `.npz` layout.

Command:  python -m checkpoints_convert.timm_to_npz model.safetensors ViT-B_16.npz

timm made its weights from Google's files, and this script goes the way back; `_load_weights` in timm's
vision_transformer.py is the reference for the names. A file without a head, such as
`vit_base_patch16_224.orig_in21k`, becomes a checkpoint without a head, as fine-tuning needs it. The file is recognized
by its content. It may be the training state of a program that wraps the weights, or that puts a prefix before names. A
config.json of timm beside the file gives mean, standard deviation and class names. The GELU is the tanh form unless
config.json or --activation gives another.
"""

import argparse

from checkpoints_convert import command, from_timm, record
from checkpoints_convert.converted import Choices
from ppvit_jax.command_line import Number
from ppvit_jax.errors import COUNT
from ppvit_jax.models.activations import ACTIVATIONS


def convert(arguments: argparse.Namespace) -> None:
    """Reads `arguments.source` and writes `arguments.target`.

    Raises:
      UserError: a file cannot be read or written, or holds another kind of model.
    """
    where = str(arguments.source)
    choices = Choices(arguments.weights, arguments.heads, arguments.activation)
    model = from_timm.read(arguments.source, choices)
    metadata = record.apply_options(model.metadata, arguments, num_classes=model.shape.num_classes, where=where)
    command.write_npz(arguments.target, model.arrays, metadata, where=where)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --heads, --activation, --weights, and the options of the record."""
    parser.add_argument(
        "--heads",
        action=Number,
        range=COUNT,
        metavar="N",
        help="number of attention heads (default: the usual one for the hidden size)",
    )
    parser.add_argument(
        "--activation",
        choices=ACTIVATIONS,
        help="form of the GELU; timm computes gelu, the exact form, unless told otherwise (default: as config.json "
        "beside SOURCE records it, or gelu_tanh, with which Google trained its models)",
    )
    command.add_weights(parser)
    record.add_options(parser)


CONVERTER = command.Converter(
    name="timm_to_npz",
    description="Converts a Vision Transformer of timm to a checkpoint in Google's .npz layout.",
    source="weights of timm, a safetensors or PyTorch file",
    target="checkpoint to write in Google's layout, a .npz that is new",
    example="model.safetensors ViT-B_16.npz",
    convert=convert,
    add_options=add_arguments,
)

if __name__ == "__main__":
    command.main(CONVERTER)
