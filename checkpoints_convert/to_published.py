"""Folders for timm and Hugging Face, written from our arrays and record in the form in which the model came."""

import json
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from checkpoints_convert import command, hugging_face_files, tensors, timm_files
from checkpoints_convert.from_hugging_face import ORIGIN as HUGGING_FACE
from checkpoints_convert.from_timm import ORIGIN as TIMM
from checkpoints_convert.hugging_face_config import TYPES
from ppvit_jax import checkpoint
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.errors import UserError
from ppvit_jax.files import written_aside
from ppvit_jax.models import family_of


def can_write(metadata: Metadata) -> bool:
    """Returns True if the record names the program whose folder `write` writes."""
    program, _, name = metadata.origin.partition(":")
    return program == TIMM or (program == HUGGING_FACE and name in TYPES)


def write(path: Path, arrays: dict[str, np.ndarray], metadata: Metadata) -> str:
    """Writes a folder with the weights in safetensors and their configuration.

    Args:
      path: the folder, which is new.
      arrays: our arrays by name.
      metadata: the record, whose `origin` names the program.

    Returns:
      A note that says how the program loads the folder.

    Raises:
      UserError: the program has no such model; the message says which part.
    """
    shape = command.infer(arrays, f"the model for {path}", metadata.model_options)
    if shape.representation_size is not None:
        raise UserError(
            f"{path} cannot be written, because the model has a pre_logits layer, which the other program does not "
            "have: give --output a name that ends with .npz"
        )
    params = checkpoint.to_params(arrays, shape, keep_head=shape.num_classes > 0, where=f"the model for {path}")
    heads = () if shape.num_classes else tuple(family_of(shape).heads)
    named = {str(name): np.asarray(array) for name, array in flatten_dict(params, sep="/").items()}
    arrays = {name: array for name, array in named.items() if not name.startswith(heads)}
    checkpoint.check_finite(arrays, f"the model for {path}")
    program, _, name = metadata.origin.partition(":")
    try:
        if program == TIMM:
            files = timm_files.make(name, arrays, shape, metadata)
        else:
            files = hugging_face_files.make(TYPES[name], arrays, shape, metadata)
    except UserError as error:
        raise UserError(f"{path} cannot be written: {error}; give --output a name that ends with .npz") from None
    with written_aside(path) as folder:
        folder.mkdir()
        tensors.write_safetensors(folder / "model.safetensors", files.state, metadata, shape.heads)
        for file, content in files.texts.items():
            (folder / file).write_text(json.dumps(content, indent=2) + "\n")
    return files.note.replace("FOLDER", str(path))
