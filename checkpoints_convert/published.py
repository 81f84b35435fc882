"""Models as they are published, read into our arrays and record, whatever program wrote their files."""

import json
from pathlib import Path

import numpy as np

from checkpoints_convert import big_vision, command, from_hugging_face, from_timm, tensors
from checkpoints_convert.converted import Choices, Converted
from checkpoints_convert.hugging_face_config import TYPES
from ppvit_jax import checkpoint
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.checkpoint.content import recognize
from ppvit_jax.errors import UserError

# Files of weights in a folder, the first that exists; each may be the index of several files.
_WEIGHTS = (*from_hugging_face.FILES, "model.safetensors.index.json", "pytorch_model.bin.index.json", "model.pth")


def read(path: Path, skip: tuple[str, ...] = ()) -> tuple[dict[str, np.ndarray], Metadata]:
    """Reads a model that timm, Hugging Face, Google or big_vision published.

    The model's files are recognized by their content: a `.npz`; a file of safetensors or PyTorch, or the index of
    several; or a folder that holds one, with the config.json of timm or Hugging Face.

    Args:
      path: the file or folder.
      skip: prefixes of the names of arrays that are not read, such as "head/".

    Returns:
      The arrays by our names, of the file's dtypes, and the record that the files tell: the model's name, image size,
      options, normalization, class names and origin.

    Raises:
      UserError: the files cannot be read, or hold a model that cannot be converted; the message says why.
    """
    if path.is_file() and recognize(path) == "npz":
        arrays, metadata = checkpoint.read(path, skip=big_vision.skipped(skip))
        return big_vision.to_ours(arrays, metadata, str(path))
    model = _read(path, Choices(command="ppvit convert timm-to-npz ", skip=skip))
    return model.arrays, command.fit(model.metadata, model.shape, str(path))


def find_weights(path: Path) -> Path:
    """Returns the file of weights, or the index of several, of a file or folder.

    Raises:
      UserError: the folder has none.
    """
    if not path.is_dir():
        return path
    names = [*_WEIGHTS, *sorted(file.name for file in path.glob("*.npz"))[:1]]
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        raise UserError(f"{path} has no weights: give a folder with config.json and model.safetensors, or a file")
    return found


def _read(path: Path, choices: Choices) -> Converted:
    weights = find_weights(path)
    config_file = weights.parent / "config.json"
    config = _read_config(config_file)
    if "model_type" in config and "architecture" not in config:
        return from_hugging_face.read(weights.parent, choices, weights)
    content = tensors.read(weights, choices.weights)
    names = " ".join(content.state)
    if any(f"{anchor}" in names for anchor in ("embeddings.patch_embedding", "embeddings.cls_token")):
        raise UserError(
            f"{weights} has the names of Hugging Face, but no config.json beside it: put it into one folder with "
            f"config.json, whose model_type is one of {', '.join(TYPES)}"
        )
    return from_timm.read(weights, choices, content)


def _read_config(path: Path) -> dict[str, object]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}
