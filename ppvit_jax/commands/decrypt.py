"""The command `ppvit decrypt`: the inverse of `ppvit encrypt`, to the very pixels that were encrypted."""

import argparse
import hmac

from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.commands.shared import permuting
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.listing import Decoding
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    shared.add_key(parser)
    permuting.add_arguments(parser)
    shared.add_encryption(parser, default=None)
    for name, default in (("image", 224), ("patch", 16)):
        parser.add_argument(
            f"--{name}-size", type=int, help=f"pixels (default: what the input says of itself, else {default})"
        )


def run(arguments: argparse.Namespace) -> None:
    """Decrypts, continuing where an interrupted run of the same command stopped.

    Raises:
      UserError: anything that the user can put right.
    """
    key = shared.open_key(arguments.key, arguments.passphrase_file)
    folder = permuting.input_folder(arguments)
    manifest = manifests.read(folder)
    if manifest is not None:
        _check(manifest, key)
    settled = {}
    for name, default in (("encryption", "bs+ps"), ("image_size", 224), ("patch_size", 16)):
        given = getattr(arguments, name)
        said = getattr(manifest.header, name) if manifest else None
        if given is not None and said is not None and given != said:
            raise UserError(f"{folder} says that its {name} is {said}, and --{name.replace('_', '-')} is {given}")
        settled[name] = said or given or default
    size, patch = settled["image_size"], settled["patch_size"]
    method, secret = permuting.open_encryption(settled["encryption"], patch, key, size)
    undone = method.undo(secret)
    images = permuting.open_images(
        arguments, Decoding(None, "squash", arguments.max_pixels), keep_names=True, manifest=manifest
    )
    origin = permuting.origin(key, images, {"decrypted": settled["encryption"]})
    permuting.permute(
        arguments,
        images,
        key,
        lambda image, _: method.encrypt(image, undone),
        manifests.Header("none", None, size, patch, origin),
        resizes=False,
    )


def _check(manifest: manifests.Manifest, key: SecretKey) -> None:
    header = manifest.header
    if header.encryption == "none":
        raise UserError(f"the images in {manifest.folder} are not encrypted")
    if header.key_fingerprint != key.fingerprint:
        raise UserError(
            f"the images in {manifest.folder} are encrypted with the key of fingerprint {header.key_fingerprint}, and "
            f"the key given has fingerprint {key.fingerprint}: use the images' key"
        )
    expected = key.authenticate(bytes.fromhex(manifest.digest))
    if not hmac.compare_digest(expected, str(manifest.authentication)):
        raise UserError(
            f"{manifest.folder / manifests.NAME} was not made with this key, or was changed since: do not trust it"
        )
