"""The command `ppvit adapt`: a plain model -> one for encrypted images."""

import argparse

from ppvit_jax import adaptation, checkpoint
from ppvit_jax.audit import public_checkpoints
from ppvit_jax.commands.shared import adapted_model
from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.commands.shared.output import new_path
from ppvit_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    shared.add_key(parser)
    adapted_model.add_files(parser)
    shared.add_encryption(parser)
    shared.add_base_is_public(parser)
    parser.add_argument("--image-size", type=int, default=224, help="of the images, in pixels (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Resizes the position embedding to the images' size, permutes the two tensors, and writes the adapted model.

    Raises:
      UserError: anything that the user can put right.
    """
    new_path(arguments.output, "the checkpoint")
    key = shared.open_key(arguments.key, arguments.passphrase_file)
    path = checkpoint.resolve(arguments.checkpoint)
    params, metadata, shape = adapted_model.open_model(path, arguments.image_size)
    if metadata.encryption != "none":
        raise UserError(
            f"{path} is adapted already, to {metadata.encryption} with the key of fingerprint "
            f"{metadata.key_fingerprint}: use ppvit rekey for another key, or ppvit restore"
        )
    method = shared.open_encryption(arguments.encryption, shape.patch_size)
    permutations = method.absorb(key, height=shape.image_size, width=shape.image_size)
    adapted = adaptation.adapt(params, permutations)
    adapted_model.write_model(arguments, adapted, metadata, shape, method.spec, key.fingerprint)
    known = public_checkpoints.identify(path, {"embedding/kernel": params["embedding"]["kernel"]})
    # Last, so that a mistake is one line.
    shared.warn_of_public_base(arguments, known)
