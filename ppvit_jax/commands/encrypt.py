"""The command `ppvit encrypt`: images -> encrypted PNG files, or an encrypted tfds data set."""

import argparse
from pathlib import Path

import numpy as np

from ppvit_jax.commands import arguments as shared
from ppvit_jax.commands import permuting
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.images import MAX_PIXELS_LIMIT
from ppvit_jax.errors import UserError
from ppvit_jax.offline.inputs import Decoding

# Those of ppvit_jax.data.preprocess, whose import takes JAX's time and memory.
_AUGMENTATIONS = ("flip", "crop", "flip+crop", "flip+crop+rand", "random_resized_crop")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    shared.add_key(parser)
    permuting.add_arguments(parser)
    shared.add_encryption(parser)
    shared.add_base_is_public(parser)
    parser.add_argument("--image-size", type=int, default=224, help="pixels (default: %(default)s)")
    parser.add_argument("--patch-size", type=int, default=16, help="the model's patch (default: %(default)s)")
    parser.add_argument(
        "--resize", choices=("centre_crop", "squash"), default="centre_crop", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--augmentations",
        type=int,
        default=0,
        metavar="N",
        help="write N augmented copies of each training image instead of the image itself",
    )
    parser.add_argument(
        "--augmentation", choices=_AUGMENTATIONS, default="flip+crop", help="of these copies (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of these copies (default: %(default)s)")
    parser.add_argument("--keep-names", action="store_true", help="keep the files' names instead of numbering them")
    parser.add_argument("--names", metavar="FILE", help="write which number is which file, as .csv, for yourself alone")


def run(arguments: argparse.Namespace) -> None:
    """Encrypts, continuing where an interrupted run of the same command stopped.

    Raises:
      UserError: anything that the user can put right.
    """
    if arguments.augmentations < 0 or arguments.seed < 0:
        raise UserError("--augmentations and --seed need 0 or more")
    if not 1 <= arguments.max_pixels <= MAX_PIXELS_LIMIT:
        raise UserError(f"--max-pixels is {arguments.max_pixels}: give 1 to {MAX_PIXELS_LIMIT}")
    key = shared.open_key(arguments.key, arguments.passphrase_file)
    size, patch = arguments.image_size, arguments.patch_size
    method, secret = permuting.open_encryption(arguments.encryption, patch, key, size)
    found = manifests.read(permuting.input_folder(arguments))
    if found and found.header.encryption != "none":
        raise UserError(
            f"the images in {found.folder} are encrypted already, with the key of fingerprint "
            f"{found.header.key_fingerprint}: decrypt them first, to encrypt them with another key"
        )
    images = permuting.open_images(
        arguments,
        Decoding(size, arguments.resize, arguments.max_pixels),
        keep_names=arguments.keep_names,
        manifest=found,
    )
    options = ("resize", "augmentations", "augmentation", "seed", "keep_names")
    permuting.permute(
        arguments,
        images,
        key,
        lambda image, number: method.encrypt(image, secret, np.asarray(number, np.uint32)),
        manifests.Header(
            encryption=method.spec,
            key_fingerprint=key.fingerprint,
            image_size=size,
            patch_size=patch,
            origin=permuting.origin(key, images, {name: getattr(arguments, name) for name in options}),
        ),
        copies=arguments.augmentations,
        augmentation=arguments.augmentation,
        seed=arguments.seed,
        names=Path(arguments.names).expanduser() if arguments.names else None,
    )
    try:
        method.absorb(key, height=size, width=size)
    except UserError:
        return  # No model is adapted to this encryption, so that none gives it away.
    # Last, so that a mistake is one line.
    shared.warn_of_public_base(arguments)
