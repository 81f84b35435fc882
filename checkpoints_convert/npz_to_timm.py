"""A checkpoint in Google's `.npz` layout -> timm's state dict (`.safetensors` or `.pth`).

Command:  python -m checkpoints_convert.npz_to_timm checkpoint.npz model.safetensors
Load it:  timm.create_model("vit_base_patch16_224", num_classes=10, act_layer="gelu_tanh", checkpoint_path=FILE)
          with images as x / 127.5 - 1 (mean and standard deviation 0.5), at the size that they have, not cropped.

Google's models compute the GELU by its tanh form; timm's default is the exact one, whose logits differ slightly. An
adapted model stays adapted: it takes encrypted images. `.safetensors` keeps what our checkpoint says of itself (key
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
      UserError: a file that cannot be read or written, or a model that timm does not have.
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
    "npz_to_timm",
    "Convert a .npz checkpoint to a timm state dict.",
    "a .npz in Google's layout, plain or adapted",
    "the .safetensors or .pth to write",
    convert,
    command.add_without_head,
)

if __name__ == "__main__":
    command.main(CONVERTER)
