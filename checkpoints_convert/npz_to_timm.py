"""Converts a checkpoint in Google's `.npz` layout to timm's state dict (`.safetensors` or `.pth`).

Command:  python -m checkpoints_convert.npz_to_timm checkpoint.npz model.safetensors
Load it:  timm.create_model("vit_base_patch16_224", num_classes=10, act_layer="gelu_tanh", checkpoint_path=FILE)
          with images as x / 127.5 - 1 (mean and standard deviation 0.5), neither resized nor cropped.

Google's models compute the tanh form of the GELU; timm's default is the exact form, whose logits differ slightly. An
adapted model stays adapted: it takes encrypted images. `.safetensors` keeps the metadata of the checkpoint (key
fingerprint, encryption, names of classes) in its header; `.pth` has no place for it that timm would ignore.
"""

import argparse
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from checkpoints_convert import command
from checkpoints_convert.names import TIMM, from_google
from ppvit_jax.errors import UserError, require
from ppvit_jax.files import written_aside


def convert(arguments: argparse.Namespace) -> None:
    """Reads `arguments.source` and writes `arguments.target`.

    Raises:
      UserError: a file cannot be read or written, or timm has no such model.
    """
    target: Path = arguments.target
    if target.suffix not in (".safetensors", ".pth"):
        raise UserError(f"{target} ends neither in .safetensors nor in .pth: choose one of them")
    if target.suffix == ".pth":
        require(f"writing {target}", "convert", "torch", instead="write a .safetensors file")
    arrays, metadata, shape = command.read_npz(arguments.source)
    arrays = command.drop_pre_logits(arrays, arguments)
    state = from_google(arrays, TIMM, layers=shape.layers)
    with written_aside(target) as path:
        if target.suffix == ".safetensors":
            save_file(state, path, metadata={"format": "pt", command.METADATA: metadata.to_json()})
        else:
            _save_pickle(path, state)


def _save_pickle(path: Path, state: dict[str, np.ndarray]) -> None:
    import torch

    torch.save({name: torch.from_numpy(tensor.copy()) for name, tensor in state.items()}, path)


CONVERTER = command.Converter(
    name="npz_to_timm",
    description="Converts a checkpoint in Google's .npz layout to weights that timm loads.",
    source="checkpoint in Google's layout, a .npz, plain or adapted",
    target="new file to write, a .safetensors or .pth",
    example="tuned.npz tuned.safetensors",
    convert=convert,
    add_options=command.add_without_head,
)

if __name__ == "__main__":
    command.main(CONVERTER)
