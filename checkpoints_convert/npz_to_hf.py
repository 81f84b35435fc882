"""Converts a checkpoint in our `.npz` layout to a folder for Hugging Face's transformers.

Command:  python -m checkpoints_convert.npz_to_hf checkpoint.npz FOLDER
Load it:  transformers.AutoModelForImageClassification.from_pretrained(FOLDER)
          transformers.AutoImageProcessor.from_pretrained(FOLDER)

Activation, epsilon, class names, normalization and resizing are those that the checkpoint records; Google's models have
the tanh form of the GELU, epsilon 1e-6, and mean and standard deviation 0.5. An adapted model stays adapted: it takes
encrypted images. The whole record of the checkpoint is in the field `ppvit` of config.json.
"""

import argparse
import dataclasses
import json

from safetensors.numpy import save_file

from checkpoints_convert import command, hugging_face_files
from ppvit_jax.errors import UserError, print_note
from ppvit_jax.files import written_aside


def convert(arguments: argparse.Namespace) -> None:
    """Reads `arguments.source` and writes the folder `arguments.target`.

    Raises:
      UserError: a file cannot be read or written, or Hugging Face's ViT has no such model.
    """
    arrays, metadata, shape = command.read_npz(arguments.source)
    arrays = command.drop_pre_logits(arrays, shape, arguments)
    if "head/kernel" not in arrays:
        metadata = dataclasses.replace(metadata, class_names=())
    try:
        files = hugging_face_files.make(hugging_face_files.find_type(shape), arrays, shape, metadata)
    except UserError as error:
        raise UserError(f"{arguments.source} cannot be converted: {error}") from None
    if not metadata.resize:
        print_note(
            f"{arguments.source} does not record how images were resized: the folder scales height and width separately"
        )
    if not metadata.mean:
        print_note(f"{arguments.source} does not record its normalization: mean and std 0.5 are assumed")
    with written_aside(arguments.target) as folder:
        folder.mkdir()
        save_file(files.state, folder / "model.safetensors", metadata={"format": "pt"})
        for name, content in files.texts.items():
            (folder / name).write_text(json.dumps(content, indent=2) + "\n")


CONVERTER = command.Converter(
    name="npz_to_hf",
    description="Converts a checkpoint in Google's .npz layout to a folder for Hugging Face's transformers.",
    source="checkpoint in Google's layout, a .npz, plain or adapted",
    target="folder to write, which is new",
    example="tuned.npz tuned_hf",
    convert=convert,
    add_options=command.add_without_head,
)

if __name__ == "__main__":
    command.main(CONVERTER)
