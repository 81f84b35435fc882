"""Converts a folder of Hugging Face's `ViTForImageClassification` or `ViTModel` to Google's `.npz` layout.

Command:  python -m checkpoints_convert.hf_to_npz FOLDER checkpoint.npz

FOLDER holds config.json and model.safetensors or pytorch_model.bin. A pooler, which only `ViTModel` has, becomes
`pre_logits`: it is the same layer, between class token and head. The checkpoint records the activation and epsilon of
config.json, its class names, and the normalization and resizing of preprocessor_config.json. These decide over the
field `ppvit` that a former export left.
"""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints_convert import command, hugging_face, naming, record, tensors
from checkpoints_convert.names import DENSE, both, to_google
from checkpoints_convert.tables.vit import HUGGING_FACE
from ppvit_jax import checkpoint
from ppvit_jax.checkpoint.content import recognize, refusal
from ppvit_jax.errors import UserError, print_note

_TABLE = (*HUGGING_FACE, *both("vit.pooler.dense", "pre_logits", DENSE))
# Names in memory since transformers 5, and in files. A state dict that torch.save wrote has the former.
_RENAMED = (
    (r"^vit\.layers\.", "vit.encoder.layer."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
_FILES = ("model.safetensors", "pytorch_model.bin")


def convert(arguments: argparse.Namespace) -> None:
    """Reads the folder `arguments.source` and writes `arguments.target`.

    Raises:
      UserError: the folder cannot be read, or holds another kind of model.
    """
    folder: Path = arguments.source
    where = str(folder)
    if folder.is_file():
        raise UserError(refusal(folder, recognize(folder), "a folder with config.json and the weights"))
    config = hugging_face.read_json(folder / "config.json", "give a folder of Hugging Face's transformers")
    with hugging_face.refusing_damage(where):
        hugging_face.check_config(config, where)
        heads = config.get("num_attention_heads", 12)
        if isinstance(heads, bool) or not isinstance(heads, int):
            raise UserError(f"{where} has num_attention_heads={heads!r}, but it must be a number")
        hugging_face.class_names(config, folder)
        former = _former_record(config, folder)
    content = tensors.read(_find_weights(folder), arguments.weights)
    state = _select(content, arguments.weights, where)
    tensors.check_values(state, where)
    heads = command.heads_of(state["vit.embeddings.cls_token"].shape[-1], heads, where)
    arrays = to_google(state, _TABLE, heads=heads, where=where)
    shape = command.check_complete(arrays, where)
    with hugging_face.refusing_damage(where):
        hugging_face.check_shape(config, shape, where)
        metadata = record.merge(former or content.record, hugging_face.own_fields(folder, config), where=where)
    if metadata.encryption != "none":
        print_note(
            f"{where} holds a model that is adapted to {metadata.encryption}, by its field ppvit: it takes such images"
        )
    metadata = record.apply_options(metadata, arguments, num_classes=shape.num_classes, where=where)
    command.write_npz(arguments.target, arrays, metadata, where=where)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --weights and the options of the record."""
    command.add_weights(parser)
    record.add_options(parser)


def _find_weights(folder: Path) -> Path:
    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    index = next((folder / f"{name}.index.json" for name in _FILES if (folder / f"{name}.index.json").is_file()), None)
    if path is None and index is not None:
        raise UserError(refusal(index, "index", "the weights"))
    if path is None:
        raise UserError(f"{folder} has neither model.safetensors nor pytorch_model.bin (weights in one file)")
    return path


def _select(content: tensors.Tensors, weights: str | None, where: str) -> dict[str, np.ndarray]:
    """Returns the tensors by the names of ViTForImageClassification's files, without those that it does not use."""
    anchor = "embeddings.cls_token"
    bare = not any(name.endswith(f"vit.{anchor}") for name in content.state)
    state = naming.strip_prefix(
        content.state, anchor if bare else f"vit.{anchor}", weights=weights, averaged=content.averaged, where=where
    )
    # The names in files of a bare ViTModel lack the prefix.
    state = {f"vit.{name}": tensor for name, tensor in state.items()} if bare else state
    if f"vit.{anchor}" not in state:
        raise UserError(f"{where} is not a Vision Transformer of Hugging Face: it has no {anchor}")
    unused = ["vit.embeddings.mask_token"]
    if "classifier.weight" in state:
        unused += ["vit.pooler.dense.weight", "vit.pooler.dense.bias"]
    if present := [name for name in unused if name in state]:
        print_note(f"{', '.join(present)} of {where} are left out, because the classifier does not use them")
    return {_rename(name): tensor for name, tensor in state.items() if name not in unused}


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _former_record(config: Mapping[str, Any], folder: Path) -> checkpoint.Metadata | None:
    if config.get(tensors.FIELD) is None:
        return None
    try:
        return checkpoint.Metadata.from_json(json.dumps(config[tensors.FIELD]))
    except (ValueError, TypeError):
        raise UserError(
            f"{folder / 'config.json'} is damaged: its field {tensors.FIELD} is no checkpoint's record"
        ) from None


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
