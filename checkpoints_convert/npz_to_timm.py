"""Converts a checkpoint in Google's `.npz` layout to timm's state dict (`.safetensors` or `.pth`).

Command:  python -m checkpoints_convert.npz_to_timm checkpoint.npz model.safetensors
Load it:  timm.create_model("vit_base_patch16_224", num_classes=10, act_layer="gelu_tanh", checkpoint_path=FILE)
          with images as x / 127.5 - 1 (mean and standard deviation 0.5), neither resized nor cropped.

The script prints the arguments and the normalization for this checkpoint. Google's models compute the tanh form of the
GELU; timm's default is the exact form, whose logits differ slightly. An adapted model stays adapted: it takes encrypted
images. The record of the checkpoint (key fingerprint, encryption, names of classes) is in the header of `.safetensors`,
or in the attribute `_metadata` of the state dict in `.pth`, which PyTorch and timm ignore.
"""

import argparse
import dataclasses
from pathlib import Path

from checkpoints_convert import command, tensors, timm_config, timm_files
from ppvit_jax.errors import UserError, print_note, require
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
    arrays = command.drop_pre_logits(arrays, shape, arguments)
    try:
        state = timm_files.make_state(arrays, shape)
    except UserError as error:
        raise UserError(f"{arguments.source} cannot be converted: {error}") from None
    if "head.weight" not in state:
        metadata = dataclasses.replace(metadata, class_names=())
        shape = dataclasses.replace(shape, num_classes=0)
    with written_aside(target) as path:
        write = tensors.write_safetensors if target.suffix == ".safetensors" else tensors.write_torch
        write(path, state, metadata, shape.heads)
    mean, std = ("{:g}, {:g}, {:g}".format(*values) for values in metadata.normalization)
    print_note(
        f"load it by timm.create_model(NAME, {timm_config.create_model_line(shape)}, checkpoint_path={str(target)!r}); "
        f"its images have mean ({mean}) and std ({std}){'' if metadata.mean else ', which are assumed'}"
    )


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
