"""Checkpoints in any form: our `.npz`, and the files that timm, Hugging Face and big_vision publish."""

import hashlib
import os
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from ppvit_jax.checkpoint import npz
from ppvit_jax.checkpoint.content import recognize
from ppvit_jax.checkpoint.metadata import Metadata
from ppvit_jax.errors import UserError
from ppvit_jax.files import local_path
from ppvit_jax.models import Params

# Kinds of files that other programs write.
_FOREIGN = ("folder", "safetensors", "torch", "index")
# Endings of the names of their files of weights.
_WEIGHTS = (".safetensors", ".bin", ".pth", ".index.json")


def open_checkpoint(
    path: str | os.PathLike, sha256: str = "", skip: tuple[str, ...] = ()
) -> tuple[dict[str, np.ndarray], Metadata]:
    """Reads a checkpoint in any form.

    Args:
      path: a `.npz`; a file of safetensors or PyTorch, or the index of several; or a folder that holds one beside its
        config.json.
      sha256: the SHA-256 that the file must have, of a folder its file of weights or their index; "" accepts any.
      skip: prefixes of names whose arrays are not read, such as "head/".

    Returns:
      The arrays by our names, and the record.

    Raises:
      UserError: the files cannot be read, or hold a model that cannot be converted; the message says why.
    """
    path = local_path(path)
    try:
        kind = recognize(path)
    except OSError:
        kind = "unknown"
    if kind in _FOREIGN:
        return _open_foreign(path, sha256, skip)
    arrays, metadata = npz.read(path, sha256, skip)
    # Only a file of big_vision has this name beside the encoder's names of Linen.
    if any(name.endswith("pos_embedding") and "Transformer" not in name for name in arrays):
        from checkpoints_convert import big_vision

        return big_vision.to_ours(arrays, metadata, str(path))
    return arrays, metadata


def is_checkpoint(path: Path) -> bool:
    """Returns True for a file of a kind that `open_checkpoint` reads, or a folder with weights of another program.

    Raises:
      OSError: the file cannot be read.
    """
    if path.is_dir():
        return any(file.name.endswith(_WEIGHTS) for file in path.iterdir())
    return recognize(path) in ("npz", "damaged", *_FOREIGN)


def weights_file(path: Path) -> Path:
    """Returns the file of weights, or the index of several, of a folder; a file itself.

    Raises:
      UserError: the folder has none.
    """
    if not path.is_dir():
        return path
    from checkpoints_convert import published

    return published.find_weights(path)


def is_from_elsewhere(metadata: Metadata) -> bool:
    """Returns True if the record names the program that a model came from, so that `write_folder` can write it."""
    if not metadata.origin:
        return False
    from checkpoints_convert import to_published

    return to_published.can_write(metadata)


def write_folder(path: Path, params: Params, metadata: Metadata) -> str:
    """Writes a model as a folder for the program that it came from.

    Returns:
      A note that says how the program loads the folder.

    Raises:
      UserError: the program has no such model; the message says why.
    """
    from checkpoints_convert import to_published

    arrays = {name: np.asarray(jax.device_get(array)) for name, array in flatten_dict(params, sep="/").items()}
    return to_published.write(path, arrays, metadata)


def _open_foreign(path: Path, sha256: str, skip: tuple[str, ...]) -> tuple[dict[str, np.ndarray], Metadata]:
    # Imported here, because other checkpoints need no part of it.
    from checkpoints_convert import published

    if sha256:
        weights = weights_file(path)
        with weights.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256.lower():
            raise UserError(f"{weights} has the SHA-256 {found} and not {sha256.lower()}: download it again")
    return published.read(path, skip)
