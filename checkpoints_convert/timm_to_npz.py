"""A Vision Transformer of timm (Hugging Face hub, `.safetensors`) -> a checkpoint in Google's `.npz` layout.

Command:  python -m checkpoints_convert.timm_to_npz model.safetensors ViT-B_16.npz

timm made these weights from Google's files, and this is the way back (timm's `_load_weights` in
vision_transformer.py is the reference for the names). A file without a head, such as
`vit_base_patch16_224.orig_in21k`, becomes a checkpoint without one, which is what fine-tuning needs.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np
from flax.traverse_util import unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ppvit_jax import checkpoint
from ppvit_jax.errors import UserError
from ppvit_jax.main import run_command
from ppvit_jax.models.vit import SIZES

_WHOLE = {
    "cls_token": "cls",
    "pos_embed": "Transformer/posembed_input/pos_embedding",
    "norm.weight": "Transformer/encoder_norm/scale",
    "norm.bias": "Transformer/encoder_norm/bias",
    "patch_embed.proj.bias": "embedding/bias",
    "head.bias": "head/bias",
    "pre_logits.fc.bias": "pre_logits/bias",
}
_IN_BLOCK = {
    "norm1.weight": "LayerNorm_0/scale",
    "norm1.bias": "LayerNorm_0/bias",
    "norm2.weight": "LayerNorm_2/scale",
    "norm2.bias": "LayerNorm_2/bias",
    "attn.proj.bias": "MultiHeadDotProductAttention_1/out/bias",
    "mlp.fc1.bias": "MlpBlock_3/Dense_0/bias",
    "mlp.fc2.bias": "MlpBlock_3/Dense_1/bias",
}
_HEADS = {hidden: heads for hidden, _, heads, _ in SIZES.values()}


def convert(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames and reshapes timm's tensors to Google's arrays.

    Args:
      state: timm's state dict: `blocks.0.attn.qkv.weight` [3 * hidden, hidden] and so on.

    Returns:
      Arrays by Google's names, `Transformer/encoderblock_0/...`, of the tensors' own dtypes.

    Raises:
      UserError: it is not the state dict of a Vision Transformer with a class token.
    """
    hidden = state["cls_token"].shape[-1] if "cls_token" in state else 0
    if hidden not in _HEADS:
        raise UserError(f"this is not a Vision Transformer of size {', '.join(SIZES)} with a class token")
    heads = _HEADS[hidden]
    arrays, unknown = {}, []
    for name, tensor in state.items():
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        prefix, part = (f"Transformer/encoderblock_{block[1]}/", block[2]) if block else ("", name)
        attention = f"{prefix}MultiHeadDotProductAttention_1/"
        if not block and name in _WHOLE:
            arrays[_WHOLE[name]] = tensor
        elif block and part in _IN_BLOCK:
            arrays[prefix + _IN_BLOCK[part]] = tensor
        elif name == "patch_embed.proj.weight":
            arrays["embedding/kernel"] = tensor.transpose(2, 3, 1, 0)
        elif name in ("head.weight", "pre_logits.fc.weight"):
            arrays[f"{name.split('.')[0]}/kernel"] = tensor.T
        elif part == "attn.qkv.weight":
            for kind, rows in zip(("query", "key", "value"), np.split(tensor, 3), strict=True):
                arrays[f"{attention}{kind}/kernel"] = rows.T.reshape(hidden, heads, -1)
        elif part == "attn.qkv.bias":
            for kind, rows in zip(("query", "key", "value"), np.split(tensor, 3), strict=True):
                arrays[f"{attention}{kind}/bias"] = rows.reshape(heads, -1)
        elif part == "attn.proj.weight":
            arrays[f"{attention}out/kernel"] = tensor.T.reshape(heads, -1, hidden)
        elif part in ("mlp.fc1.weight", "mlp.fc2.weight"):
            arrays[f"{prefix}MlpBlock_3/Dense_{int(part[6]) - 1}/kernel"] = tensor.T
        else:
            unknown.append(name)
    if unknown:
        raise UserError(f"this is not one of Google's Vision Transformers, it has also {', '.join(sorted(unknown))}")
    return arrays


def main(arguments: list[str]) -> None:
    """Reads the file, converts it and writes the checkpoint.

    Raises:
      UserError: a file that cannot be read or written, or is of another kind of model.
    """
    parser = argparse.ArgumentParser(
        prog="python -m checkpoints_convert.timm_to_npz",
        description="Converts a Vision Transformer of timm to a checkpoint in Google's .npz layout.",
    )
    parser.add_argument("source", type=Path, help="timm's model.safetensors")
    parser.add_argument("target", type=Path, help="the checkpoint to write, such as ViT-B_16.npz")
    known = parser.parse_args(arguments)
    if known.target.exists():
        raise UserError(f"{known.target} exists: choose another name")
    try:
        state = load_file(known.source)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {known.source} as safetensors: {error}") from None
    arrays = convert(state)
    try:
        checkpoint.write(known.target, unflatten_dict(arrays, sep="/"), checkpoint.Metadata())
    except OSError as error:
        raise UserError(f"cannot write {known.target}: {error.strerror}") from None
    print(f"{known.target}: {sum(array.size for array in arrays.values()) / 1e6:.1f} million parameters")


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
