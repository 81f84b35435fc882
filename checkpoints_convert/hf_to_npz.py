"""Converts a folder of Hugging Face's `ViTForImageClassification` or `ViTModel` to Google's `.npz` layout.

Command:  python -m checkpoints_convert.hf_to_npz FOLDER checkpoint.npz

FOLDER holds config.json and model.safetensors or pytorch_model.bin. A pooler, which only `ViTModel` has, becomes
`pre_logits`: it is the same layer, between class token and head. If config.json names the exact GELU (`"gelu"`, as
that of google/vit-base-patch16-224), the script prints a warning, because our models compute Google's tanh form.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from checkpoints_convert import command
from checkpoints_convert.names import DENSE, HUGGING_FACE, both, to_google
from ppvit_jax import checkpoint
from ppvit_jax.errors import UserError

_TABLE = (*HUGGING_FACE, *both("vit.pooler.dense", "pre_logits", DENSE))


def convert(arguments: argparse.Namespace) -> None:
    """Reads the folder `arguments.source` and writes `arguments.target`.

    Raises:
      UserError: the folder cannot be read, or holds another kind of model.
    """
    folder: Path = arguments.source
    config = _read_config(folder)
    if config.get("model_type") != "vit" or not isinstance(config.get("num_attention_heads"), int):
        raise UserError(f"{folder} is a model of type {config.get('model_type')!r}, but only 'vit' can be converted")
    weights = next((folder / n for n in ("model.safetensors", "pytorch_model.bin") if (folder / n).is_file()), None)
    if weights is None:
        raise UserError(f"{folder} has neither model.safetensors nor pytorch_model.bin (weights in one file)")
    state, _ = command.read_tensors(weights)
    # The names in files of a bare ViTModel lack the prefix.
    state = {n if n.startswith(("vit.", "classifier.")) else f"vit.{n}": tensor for n, tensor in state.items()}
    heads = command.heads_of(config.get("hidden_size", 0), config["num_attention_heads"], str(folder))
    arrays = to_google(state, _TABLE, heads=heads, where=str(folder))
    activation = config.get("hidden_act", "gelu")
    if activation == "gelu":
        print(
            "warning: this model was trained with the exact GELU; its logits differ slightly under the tanh form, "
            "which Google's layout implies",
            file=sys.stderr,
        )
    elif activation not in ("gelu_pytorch_tanh", "gelu_new", "gelu_fast"):
        raise UserError(f"{folder} has the activation {activation!r}, but Google's Vision Transformers use GELU")
    command.write_npz(arguments.target, arrays, _metadata(config, folder), where=str(folder))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
        if not isinstance(config, dict):
            raise ValueError
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; give a folder of Hugging Face's transformers") from None
    except ValueError:
        raise UserError(f"{path} is not the configuration of a model: choose another folder") from None
    return config


def _metadata(config: dict[str, Any], folder: Path) -> checkpoint.Metadata:
    try:
        if command.METADATA in config:
            return checkpoint.Metadata.from_json(json.dumps(config[command.METADATA]))
        labels = config.get("id2label") or {}
        names = tuple(str(labels[str(number)]) for number in range(len(labels)))
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder / 'config.json'} is damaged: its labels or its field ppvit") from None
    return checkpoint.Metadata(class_names=() if all(name.startswith("LABEL_") for name in names) else names)


CONVERTER = command.Converter(
    name="hf_to_npz",
    description="Converts a Vision Transformer of Hugging Face to a checkpoint in Google's .npz layout.",
    source="folder with config.json and model.safetensors or pytorch_model.bin",
    target="checkpoint to write in Google's layout, a .npz that is new",
    example="vit-base-patch16-224-in21k ViT-B_16.npz",
    convert=convert,
)

if __name__ == "__main__":
    command.main(CONVERTER)
