"""Adapted models: the owner's commands read them with a key, and write them."""

import argparse
import dataclasses

from ppvit_jax import checkpoint, models
from ppvit_jax.commands.shared.arguments import ENCRYPTED, open_encryption
from ppvit_jax.commands.shared.output import new_path
from ppvit_jax.commands.shared.saved_model import SavedModel, open_model
from ppvit_jax.encryption import Permutations
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey


def add_files(parser: argparse.ArgumentParser) -> None:
    """Adds --checkpoint and --output."""
    parser.add_argument("--checkpoint", required=True, metavar="IN", help="a .npz in Google's layout, or a ConvMixer's")
    parser.add_argument("--output", required=True, metavar="OUT", help="the .npz to write")


def add_lost_encryption(parser: argparse.ArgumentParser) -> None:
    """Adds --encryption, for a checkpoint that no longer says what it is adapted to."""
    parser.add_argument(
        "--encryption",
        metavar="NAME",
        help=f"what the model is adapted to, if another program has lost what it says of itself: {ENCRYPTED}",
    )


def key_permutations(model: SavedModel, key: SecretKey) -> Permutations:
    """Returns a key's permutations of the blocks and values of a model's images, by the model's encryption."""
    method = open_encryption(model.metadata.encryption, model.shape.patch_size)
    return method.absorb(key, height=model.shape.image_size, width=model.shape.image_size)


def open_adapted(arguments: argparse.Namespace, key: SecretKey) -> SavedModel:
    """Reads the adapted model of --checkpoint, and makes sure of its key.

    Returns:
      The model, its metadata with the encryption that --encryption says where the file does not.

    Raises:
      UserError: as `open_model`; or the model is plain, or adapted with another key.
    """
    path = checkpoint.resolve(arguments.checkpoint)
    model = open_model(path)
    given, said = arguments.encryption, model.metadata.encryption
    if given is not None:
        given = open_encryption(given, model.shape.patch_size).spec
    if said == "none" and given is None:
        raise UserError(
            f"{path} does not say that it is adapted: if it is, and lost its metadata in another program, say to "
            "what by --encryption"
        )
    if said != "none" and given not in (None, said):
        raise UserError(f"{path} says that it is adapted to {said!r}, and --encryption is {given}")
    if said != "none" and model.metadata.key_fingerprint != key.fingerprint:
        raise UserError(
            f"{path} is adapted with the key of fingerprint {model.metadata.key_fingerprint}, and the key given has "
            f"fingerprint {key.fingerprint}: use the model's key"
        )
    return model.with_encryption(given or said)


def write_model(arguments: argparse.Namespace, model: SavedModel, key: SecretKey | None) -> None:
    """Writes --output and says what it is.

    Args:
      arguments: with --output.
      model: its metadata has the encryption that it is adapted to.
      key: the key that it is adapted with; None for a plain model.

    Raises:
      UserError: the file exists, or its folder does not.
    """
    path, shape = new_path(arguments.output, "the checkpoint"), model.shape
    metadata = dataclasses.replace(
        model.metadata,
        model=model.metadata.model or models.model_name(shape),
        image_size=shape.image_size,
        encryption=model.metadata.encryption if key else "none",
        key_fingerprint=key.fingerprint if key else None,
    )
    checkpoint.write(path, checkpoint.join(model.params, model.statistics), metadata)
    name = metadata.model or models.family_of(shape).title
    adapted = f"adapted to {metadata.encryption} with the key of fingerprint {metadata.key_fingerprint}"
    print(f"{path}: {name}, {shape.image_size}x{shape.image_size}, {adapted if key else 'a plain model'}")
