"""What `ppvit adapt`, `ppvit restore` and `ppvit rekey` share."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from ppvit_jax import checkpoint, models
from ppvit_jax.commands.shared.arguments import ENCRYPTED, open_encryption
from ppvit_jax.commands.shared.output import new_path
from ppvit_jax.encryption import Permutations, derive_permutations
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey


@dataclasses.dataclass(frozen=True)
class Adapted:
    """An adapted model: its parameters, what it says of itself, its shape, and how it is encrypted."""

    params: Any
    metadata: checkpoint.Metadata
    shape: models.ViTConfig
    encryption: str

    def permutations(self, key: SecretKey) -> Permutations:
        """A key's permutations for the model's sizes."""
        size, patch = self.shape.image_size, self.shape.patch_size
        return derive_permutations(key, self.encryption, image_size=size, block_size=patch)


def add_files(parser: argparse.ArgumentParser) -> None:
    """Adds --checkpoint and --output."""
    parser.add_argument("--checkpoint", required=True, metavar="IN", help="a .npz in Google's layout")
    parser.add_argument("--output", required=True, metavar="OUT", help="the .npz to write")


def add_lost_encryption(parser: argparse.ArgumentParser) -> None:
    """Adds --encryption, for a checkpoint that no longer says what it is adapted to."""
    parser.add_argument(
        "--encryption",
        metavar="NAME",
        help=f"what the model is adapted to, if another program has lost what it says of itself: {ENCRYPTED}",
    )


def open_model(path: Path, image_size: int | None) -> tuple[Any, checkpoint.Metadata, models.ViTConfig]:
    """Reads any checkpoint in Google's layout, with its head if it has one.

    Args:
      path: the file.
      image_size: resize the position embedding to this size of images; None keeps the file's.

    Returns:
      The parameters, the metadata and the shape.

    Raises:
      UserError: a file that cannot be read, or is not a Vision Transformer's, or a size that is impossible.
    """
    arrays, metadata = checkpoint.read(path)
    dtype = "float64" if any(array.dtype == "float64" for array in arrays.values()) else "float32"
    shape = models.infer_config(arrays, where=str(path), dtype=dtype)
    if image_size is not None:
        if image_size <= 0 or image_size % shape.patch_size:
            raise UserError(f"--image-size {image_size} is not a multiple of the model's patch size {shape.patch_size}")
        shape = dataclasses.replace(shape, image_size=image_size)
    params = checkpoint.to_params(arrays, shape, keep_head=shape.num_classes > 0, where=str(path))
    if not shape.num_classes:
        del params["head"]
    return params, metadata, shape


def open_adapted(arguments: argparse.Namespace, key: SecretKey) -> Adapted:
    """Reads the adapted model of --checkpoint, and makes sure of its key.

    Raises:
      UserError: as `open_model`; or the model is plain, or adapted with another key.
    """
    path = checkpoint.resolve(arguments.checkpoint)
    params, metadata, shape = open_model(path, None)
    given, said = arguments.encryption, metadata.encryption
    if given is not None:
        given = open_encryption(given, shape.patch_size).spec
    if said == "none" and given is None:
        raise UserError(
            f"{path} does not say that it is adapted: if it is, and lost its metadata in another program, say to "
            "what by --encryption"
        )
    if said != "none" and given not in (None, said):
        raise UserError(f"{path} says that it is adapted to {said!r}, and --encryption is {given}")
    if said != "none" and metadata.key_fingerprint != key.fingerprint:
        raise UserError(
            f"{path} is adapted with the key of fingerprint {metadata.key_fingerprint}, and the key given has "
            f"fingerprint {key.fingerprint}: use the model's key"
        )
    return Adapted(params, metadata, shape, given or said)


def write_model(
    arguments: argparse.Namespace,
    params: Any,
    metadata: checkpoint.Metadata,
    shape: models.ViTConfig,
    encryption: str,
    fingerprint: str | None,
) -> None:
    """Writes --output and says what it is.

    Raises:
      UserError: the file exists, or its folder does not.
    """
    path = new_path(arguments.output, "the checkpoint")
    metadata = dataclasses.replace(
        metadata,
        model=metadata.model or models.model_name(shape),
        image_size=shape.image_size,
        encryption=encryption,
        key_fingerprint=fingerprint,
    )
    checkpoint.write(path, params, metadata)
    what = f"adapted to {encryption} with the key of fingerprint {fingerprint}" if fingerprint else "a plain model"
    print(f"{path}: {metadata.model or 'Vision Transformer'}, {shape.image_size}x{shape.image_size}, {what}")
