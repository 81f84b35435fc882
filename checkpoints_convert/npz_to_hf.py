"""Converts a checkpoint in Google's `.npz` layout to a folder for Hugging Face's `ViTForImageClassification`.

Command:  python -m checkpoints_convert.npz_to_hf checkpoint.npz FOLDER
Load it:  transformers.ViTForImageClassification.from_pretrained(FOLDER)
          transformers.AutoImageProcessor.from_pretrained(FOLDER)

Activation, epsilon, class names, normalization and resizing are those that the checkpoint records; Google's models have
the tanh form of the GELU, epsilon 1e-6, and mean and standard deviation 0.5. An adapted model stays adapted: it takes
encrypted images. The whole record of the checkpoint is in the field `ppvit` of config.json.
"""

import argparse
import dataclasses
import json

from safetensors.numpy import save_file

from checkpoints_convert import command, hugging_face
from checkpoints_convert.names import from_google
from checkpoints_convert.tables.vit import HUGGING_FACE
from checkpoints_convert.tensors import FIELD
from ppvit_jax.errors import print_note
from ppvit_jax.files import written_aside


def convert(arguments: argparse.Namespace) -> None:
    """Reads `arguments.source` and writes the folder `arguments.target`.

    Raises:
      UserError: a file cannot be read or written, or Hugging Face's ViT has no such model.
    """
    arrays, metadata, shape = command.read_npz(arguments.source)
    state = from_google(command.drop_pre_logits(arrays, arguments), HUGGING_FACE, layers=shape.layers)
    has_head = "classifier.weight" in state
    dtype = str(state["vit.embeddings.cls_token"].dtype)
    config = hugging_face.make_config(shape, metadata, has_head=has_head, dtype=dtype)
    if not has_head:
        metadata = dataclasses.replace(metadata, class_names=())
    config[FIELD] = json.loads(metadata.to_json())
    if not metadata.resize:
        print_note(
            f"{arguments.source} does not record how images were resized: the folder scales height and width separately"
        )
    if not metadata.mean:
        print_note(f"{arguments.source} does not record its normalization: mean and std 0.5 are assumed")
    processor = hugging_face.make_processor(metadata, shape.image_size)
    with written_aside(arguments.target) as folder:
        folder.mkdir()
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


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
