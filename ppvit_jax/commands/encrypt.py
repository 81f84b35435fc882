"""The command `ppvit encrypt`: images -> encrypted PNG files, or an encrypted tfds data set."""

import argparse
import logging
from pathlib import Path
from typing import Any

from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.commands.shared import permuting
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.images import MAX_PIXELS_LIMIT
from ppvit_jax.data.listing import Decoding
from ppvit_jax.errors import UserError
from ppvit_jax.offline.journal import Journal
from ppvit_jax.offline.permute import Recipe, encrypting
from ppvit_jax.offline.worker import Task

# Those of ppvit_jax.data.preprocess, whose import takes JAX's time and memory.
_AUGMENTATIONS = ("flip", "crop", "flip+crop", "flip+crop+rand", "random_resized_crop")
_RUNNERS = ("DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner", "PortableRunner", "PrismRunner")


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
    parser.add_argument("--runner", choices=_RUNNERS, help="encrypt as an Apache Beam pipeline: see docs/beam.md")
    parser.add_argument(
        "--runner-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one of Beam's options, such as region=europe-west1; as often as needed",
    )


def run(arguments: argparse.Namespace) -> None:
    """Encrypts, continuing where an interrupted run of the same command stopped.

    Raises:
      UserError: anything that the user can put right.
    """
    if arguments.augmentations < 0 or arguments.seed < 0:
        raise UserError("--augmentations and --seed need 0 or more")
    if not 1 <= arguments.max_pixels <= MAX_PIXELS_LIMIT:
        raise UserError(f"--max-pixels is {arguments.max_pixels}: give 1 to {MAX_PIXELS_LIMIT}")
    beam = _import_beam(arguments)
    key = shared.open_key(arguments.key, arguments.passphrase_file)
    size, patch = arguments.image_size, arguments.patch_size
    method, secret = permuting.open_encryption(arguments.encryption, patch, key, size)
    found = manifests.read(permuting.input_folder(arguments))
    if found and found.header.encryption != "none":
        raise UserError(
            f"the images in {found.folder} are encrypted already, with the key of fingerprint "
            f"{found.header.key_fingerprint}: decrypt them first, to encrypt them with another key"
        )
    decoding = Decoding(size, arguments.resize, arguments.max_pixels)
    images = permuting.open_images(arguments, decoding, keep_names=arguments.keep_names, manifest=found)

    def pipeline(journal: Journal, recipe: Recipe) -> None:
        task = Task(
            output=journal.folder.absolute(),
            root=images.root.absolute(),
            splits=tuple(split.name for split in images.splits) if images.dataset else None,
            decoding=decoding,
            key_file=Path(arguments.key).expanduser().absolute(),
            passphrase_file=arguments.passphrase_file and Path(arguments.passphrase_file).expanduser().absolute(),
            key_fingerprint=key.fingerprint,
            encryption=method.spec,
            image_size=size,
            patch_size=patch,
            copies=recipe.copies,
            augmentation=recipe.augmentation,
            seed=recipe.seed,
            skip_unreadable=arguments.skip_unreadable,
        )
        beam.run(task, images, journal, runner=arguments.runner, options=arguments.runner_option, what="encrypting")

    options = ("resize", "augmentations", "augmentation", "seed", "keep_names")
    permuting.permute(
        arguments,
        images,
        key,
        encrypting(method, secret),
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
        pipeline=pipeline if beam else None,
    )
    try:
        method.absorb(key, height=size, width=size)
    except UserError:
        return  # No model is adapted to this encryption, so that none gives it away.
    # Last, so that a mistake is one line.
    shared.warn_of_public_base(arguments)


def _import_beam(arguments: argparse.Namespace) -> Any:
    if not arguments.runner:
        if arguments.runner_option:
            raise UserError("--runner-option is for --runner")
        return None
    # Beam warns at its import of what its other extras lack.
    logging.disable(logging.WARNING)
    try:
        from ppvit_jax.offline import beam
    except ImportError as error:
        raise UserError(f"--runner needs Apache Beam ({error}): run pip install 'ppvit-jax[beam]'") from None
    finally:
        logging.disable(logging.NOTSET)
    return beam
