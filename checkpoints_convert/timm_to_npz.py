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

import numpy as np

from checkpoints_convert import command, naming, record, tensors, timm_config
from checkpoints_convert.names import to_google
from checkpoints_convert.tables.vit import TIMM
from ppvit_jax.command_line import Number
from ppvit_jax.errors import COUNT, UserError, print_note
from ppvit_jax.models.vit_config import ACTIVATIONS


def convert(arguments: argparse.Namespace) -> None:
    """Reads `arguments.source` and writes `arguments.target`.

    Raises:
      UserError: a file cannot be read or written, or holds another kind of model.
    """
    where, config_file = str(arguments.source), arguments.source.parent / "config.json"
    content = tensors.read(arguments.source, arguments.weights)
    naming.refuse_obstacles(content.state, where=where)
    state = naming.strip_prefix(
        content.state, "cls_token", weights=arguments.weights, averaged=content.averaged, where=where
    )
    naming.refuse_obstacles(state, where=where)
    if "cls_token" not in state:
        raise UserError(f"{where} is not a Vision Transformer of timm with a class token: it has no cls_token")
    if "blocks.0.attn.qkv.weight" in state and "blocks.0.attn.qkv.bias" not in state:
        raise UserError(
            f"{where} has no biases of queries, keys and values (qkv_bias=False), which Google's models have"
        )
    _check_patches(state, where)
    tensors.check_values(state, where)
    num_classes = len(state["head.weight"]) if "head.weight" in state else 0
    # A record in the file itself is of these very weights; config.json may be of another file in the folder.
    config = {} if content.record else timm_config.read(config_file)
    if not timm_config.fits(config, num_classes=num_classes, where=str(config_file)):
        config = {}
    timm_config.check_arguments(config, str(config_file))
    recorded_heads = arguments.heads if arguments.heads is not None else content.heads or timm_config.heads(config)
    heads = command.heads_of(state["cls_token"].shape[-1], recorded_heads, where)
    arrays = to_google(_add_class_position(state), TIMM, heads=heads, where=where)
    shape = command.check_complete(arrays, where)
    if recorded_heads is None:
        print_note(
            f"{where} does not record its attention heads: {heads} are assumed, which is usual (--heads sets others)"
        )
    activation = arguments.activation or timm_config.activation(config, str(config_file))
    if activation is None and content.record is None:
        print_note(
            f"{where} does not record its activation: the tanh form of the GELU is assumed (--activation gelu: exact)"
        )
    own = timm_config.own_fields(
        config,
        content.settings,
        num_classes=num_classes,
        image_size=shape.image_size,
        where=str(config_file),
    )
    if config:
        title = config["architecture"]
        print_note(
            f"{config_file} describes {where} as {title}: its normalization, resizing and class names are recorded"
        )
    if activation is not None:
        options = dict(content.record.model_options) if content.record else {}
        own["model_options"] = options | {"activation": activation}
    metadata = record.merge(content.record, own, where=where)
    metadata = record.apply_options(metadata, arguments, num_classes=num_classes, where=where)
    command.write_npz(arguments.target, arrays, metadata, where=where)


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


def _check_patches(state: dict[str, np.ndarray], where: str) -> None:
    """Refuses a model by its patches and positions, before their shapes are converted."""
    kernel = state.get("patch_embed.proj.weight")
    if kernel is None or kernel.ndim != 4 or "pos_embed" not in state:
        raise UserError(f"{where} has no patch embedding by a convolution, or no learned position embedding")
    _, channels, height, width = kernel.shape
    if channels != 3 or height != width:
        raise UserError(
            f"{where} has patches of {height}x{width} pixels and {channels} channels, but only square patches of RGB "
            "images can be represented"
        )


def _add_class_position(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gives the class token the position zero in a model whose position embedding is that of the patches alone."""
    positions = state.get("pos_embed")
    if positions is None or positions.ndim != 3 or positions.shape[1] < 2:
        return state
    if round(positions.shape[1] ** 0.5) ** 2 != positions.shape[1]:
        return state
    return {**state, "pos_embed": np.concatenate([np.zeros_like(positions[:, :1]), positions], axis=1)}


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
