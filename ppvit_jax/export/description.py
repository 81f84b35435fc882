"""Description of an exported program, which its file carries: the images that it takes, and its classes."""

import json
import zipfile
from pathlib import Path
from typing import Any

import ppvit_jax
from ppvit_jax import models
from ppvit_jax.checkpoint import Metadata, describe_images, describe_resize
from ppvit_jax.errors import UserError, require

# Files in the zip archive of a .stablehlo file.
PROGRAM = "program.bin"
DESCRIPTION = "description.json"
# Entry of every description.
_PRODUCER = "ppvit_jax"
# A description of more bytes is not one of ours.
_LARGEST = 2**26

Description = dict[str, Any]


def describe(shape: models.ModelConfig, metadata: Metadata) -> Description:
    """Describes the program of a model.

    Args:
      shape: the model's shape.
      metadata: the record of its checkpoint.

    Returns:
      Texts, numbers and lists by name, which JSON can hold. Empty ones are left out.
    """
    size, (encryption, fingerprint) = shape.image_size, metadata.images
    (mean, std), encrypted = metadata.normalization, encryption != "none"
    entries = {
        "producer": _PRODUCER,
        "version": ppvit_jax.__version__,
        "model": metadata.model or models.model_name(shape) or models.family_of(shape).title,
        "input": f"images, uint8 [batch, {size}, {size}, 3], red, green and blue from 0 to 255",
        "images": describe_images(encryption, fingerprint),
        "output": f"logits, float32 [batch, {shape.num_classes}]",
        "dtype": shape.dtype,
        "image_size": size,
        "resize": describe_resize(metadata.resize),
        "classes": shape.num_classes,
        "class_names": list(metadata.class_names),
        # The program normalizes by these itself.
        "mean": list(mean),
        "std": list(std),
        "encryption": encryption,
        "block_size": (metadata.images_block_size or shape.patch_size) if encrypted else 0,
        "key_fingerprint": fingerprint or "",
        "adapted_to": metadata.encryption if metadata.encryption != "none" else "",
    }
    return {name: value for name, value in entries.items() if value not in ("", 0, [])}


def to_texts(description: Description) -> dict[str, str]:
    """Returns a description with every value as text, lists as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in description.items()}


def from_texts(texts: dict[str, str]) -> Description:
    """Returns the description that `to_texts` wrote."""
    description: Description = {}
    for name, text in texts.items():
        try:
            description[name] = json.loads(text) if name not in ("version", "key_fingerprint") else text
        except ValueError:
            description[name] = text
    return description


def read_description(path: Path) -> Description | None:
    """Returns the description that an exported file carries; None for a file of another kind.

    Raises:
      UserError: the file is damaged, or it is an ONNX file and the library is not installed.
      OSError: the file cannot be read.
    """
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                if DESCRIPTION not in archive.namelist() or archive.getinfo(DESCRIPTION).file_size > _LARGEST:
                    return None
                description = json.loads(archive.read(DESCRIPTION))
        except (ValueError, zipfile.BadZipFile, EOFError, NotImplementedError):
            raise UserError(f"{path} is damaged: export the model again") from None
    elif path.suffix == ".onnx":
        description = _read_onnx(path)
    else:
        return None
    if not isinstance(description, dict) or description.get("producer") != _PRODUCER:
        return None
    return description if isinstance(description.get("model"), str) else None


def _read_onnx(path: Path) -> Description:
    require("an .onnx file", "onnx", "onnx")
    import onnx

    try:
        model = onnx.load_model(path, load_external_data=False)
    except Exception as error:
        # Protobuf's own class of errors is that of another package.
        if isinstance(error, OSError):
            raise
        raise UserError(f"{path} is not an ONNX file, or is damaged: export the model again") from None
    return from_texts({entry.key: entry.value for entry in model.metadata_props})
