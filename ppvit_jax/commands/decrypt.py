"""The command `ppvit decrypt`: decrypts images to exactly the pixels that were encrypted."""

import argparse
import hmac
from pathlib import Path

from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.commands.shared import conversion
from ppvit_jax.commands.shared.encryption_choices import image_encryptions
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.images import ImageReader
from ppvit_jax.errors import UserError, print_note, resuming
from ppvit_jax.keys import SecretKey
from ppvit_jax.offline.recipe import Recipe, make_decryptor

# Used where neither the input's manifest nor the arguments say otherwise.
_DEFAULTS = {"encryption": "", "image_size": shared.DEFAULT_IMAGE_SIZE, "block_size": shared.DEFAULT_BLOCK_SIZE}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments and description."""
    describe(
        parser,
        "Decrypts images that ppvit encrypt wrote, to exactly the pixels that were encrypted. The owner runs it: it "
        "reads the encrypted images and the key, and writes plain PNG files or a plain tfds data set. If it is "
        "interrupted, run the same command again: it resumes and writes identical files.",
        "ppvit decrypt --key secret.key --input encrypted --output images_again",
    )
    shared.add_key(parser)
    conversion.add_arguments(parser)
    note = "default: the manifest's; required without a manifest"
    shared.add_encryption(parser, image_encryptions(), "encryption of the images", note)
    shared.add_sizes(parser, declared=True)


@resuming()
def run(arguments: argparse.Namespace) -> None:
    """Decrypts, continuing where an interrupted run of the same command stopped.

    Raises:
      UserError: the arguments or files cannot be used.
    """
    key = shared.open_key(arguments.key, arguments.passphrase_file)
    source = conversion.parse_input(arguments)
    manifest = manifests.read(source.folder)
    if manifest is not None:
        _check(manifest, key)
    settings = {}
    for name, default in _DEFAULTS.items():
        argument = getattr(arguments, name)
        declared = getattr(manifest.header, name) if manifest else None
        if argument is not None and declared is not None and argument != declared:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(
                f"the manifest of {source.folder} has the {name} {declared}, not {argument}: leave {flag} out"
            )
        settings[name] = declared or argument or default
    size, block_size = settings["image_size"], settings["block_size"]
    if not settings["encryption"]:
        raise UserError(
            f"{source.folder} has no {manifests.NAME}, so its images may be plain: copy the manifest that encrypt "
            f"wrote, or name the encryption by --encryption, such as --encryption={shared.DEFAULT_ENCRYPTION}"
        )
    if manifest is None:
        print_note(
            f"{source.folder} has no {manifests.NAME}: assuming {settings['encryption']}, images of "
            f"{size}x{size} and blocks of {block_size}x{block_size} pixels"
        )
    method = conversion.open_image_encryption(settings["encryption"], block_size)
    decryptor = make_decryptor(method, method.derive(key, height=size, width=size))
    reader = ImageReader(None, "squash", arguments.max_pixels)
    images = source.open(reader, keep_names=True, manifest=manifest)
    conversion.Conversion(
        "decrypting",
        images,
        Recipe(size, decryptor, resizes=False, skip_unreadable=arguments.skip_unreadable),
        source.output_folder(Path(arguments.output).expanduser()),
        manifests.Header(
            encryption="none",
            key_fingerprint=None,
            image_size=size,
            block_size=block_size,
            origin="",
            copies=images.copies,
        ),
        key,
        {"decrypted": settings["encryption"]},
    ).run()


def _check(manifest: manifests.Manifest, key: SecretKey) -> None:
    header = manifest.header
    if header.encryption == "none":
        raise UserError(f"the images in {manifest.folder} are not encrypted: use them as they are")
    if header.key_fingerprint != key.fingerprint:
        raise UserError(
            f"the images in {manifest.folder} are encrypted with the key of fingerprint {header.key_fingerprint}, but "
            f"--key has fingerprint {key.fingerprint}: use the images' key"
        )
    expected = key.authenticate(bytes.fromhex(manifest.digest))
    if not hmac.compare_digest(expected, str(manifest.authentication)):
        raise UserError(
            f"{manifest.folder / manifests.NAME} was not written with this key, or has changed: do not trust it"
        )
