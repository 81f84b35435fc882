"""Converts a Vision Transformer of timm (`.safetensors` or `.pth`) to Google's `.npz` layout.

Command:  python -m checkpoints_convert.timm_to_npz model.safetensors ViT-B_16.npz

timm made its weights from Google's files, and this script goes the way back; `_load_weights` in timm's
vision_transformer.py is the reference for the names. A file without a head, such as
`vit_base_patch16_224.orig_in21k`, becomes a checkpoint without a head, as fine-tuning needs it.
"""

import argparse

from checkpoints_convert import command
from checkpoints_convert.names import TIMM, to_google
from ppvit_jax.command_line import Number
from ppvit_jax.errors import COUNT, UserError


def convert(arguments: argparse.Namespace) -> None:
    """Reads `arguments.source` and writes `arguments.target`.

    Raises:
      UserError: a file cannot be read or written, or holds another kind of model.
    """
    where = str(arguments.source)
    state, metadata = command.read_tensors(arguments.source)
    if "cls_token" not in state:
        raise UserError(f"{where} is not a Vision Transformer of timm with a class token")
    heads = command.heads_of(state["cls_token"].shape[-1], arguments.heads, where)
    command.write_npz(arguments.target, to_google(state, TIMM, heads=heads, where=where), metadata, where=where)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --heads."""
    parser.add_argument(
        "--heads",
        type=int,
        action=Number,
        range=COUNT,
        metavar="N",
        help="number of attention heads (default: the usual one for the hidden size)",
    )


CONVERTER = command.Converter(
    name="timm_to_npz",
    description="Converts a Vision Transformer of timm to a checkpoint in Google's .npz layout.",
    source="weights of timm, a .safetensors, .pth, .pt or .bin",
    target="checkpoint to write in Google's layout, a .npz that is new",
    example="model.safetensors ViT-B_16.npz",
    convert=convert,
    add_options=add_arguments,
)

if __name__ == "__main__":
    command.main(CONVERTER)
