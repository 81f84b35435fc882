"""The command `ppvit encrypt`: images -> encrypted PNG files, or an encrypted tfds data set."""

from __future__ import annotations

import argparse
import csv
import filecmp
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.commands.shared import conversion
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.augmentation import AUGMENTATIONS
from ppvit_jax.data.images import MAX_PIXELS_LIMIT, RESIZES, ImageReader
from ppvit_jax.data.listing import Images
from ppvit_jax.errors import UserError, require
from ppvit_jax.files import written_aside
from ppvit_jax.offline.recipe import Augmentation, Recipe, make_encryptor
from ppvit_jax.offline.worker import KeyFile, Task

if TYPE_CHECKING:
    from ppvit_jax.offline.beam import BeamPipeline

_RUNNERS = ("DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner", "PortableRunner", "PrismRunner")
# Options that decide the output and that the manifest does not name.
_ORIGIN = ("resize", "augmentations", "augmentation", "seed", "keep_names")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    shared.add_key(parser)
    conversion.add_arguments(parser)
    shared.add_encryption(parser)
    shared.add_base_is_public(parser)
    shared.add_sizes(parser)
    parser.add_argument("--resize", choices=RESIZES, default=RESIZES[0], help="(default: %(default)s)")
    parser.add_argument(
        "--augmentations",
        type=int,
        default=0,
        metavar="N",
        help="write N augmented copies of each training image instead of the image itself",
    )
    parser.add_argument(
        "--augmentation",
        choices=[name for name in AUGMENTATIONS if name != "none"],
        default="flip+crop",
        help="of these copies (default: %(default)s)",
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
    pipeline_type = _import_pipeline(arguments)
    key = shared.open_key(arguments.key, arguments.passphrase_file)
    size, block_size = arguments.image_size, arguments.block_size
    method = conversion.open_image_encryption(arguments.encryption, block_size)
    encryptor = make_encryptor(method, method.derive(key, height=size, width=size))
    source = conversion.parse_input(arguments)
    manifest = manifests.read(source.folder)
    if manifest and manifest.header.encryption != "none":
        raise UserError(
            f"the images in {manifest.folder} are encrypted already, with the key of fingerprint "
            f"{manifest.header.key_fingerprint}: decrypt them first, to encrypt them with another key"
        )
    reader = ImageReader(size, arguments.resize, arguments.max_pixels)
    images = source.open(reader, keep_names=arguments.keep_names, manifest=manifest)
    header = manifests.Header(
        encryption=method.spec,
        key_fingerprint=key.fingerprint,
        image_size=size,
        block_size=block_size,
        origin=conversion.identify(key, images, {name: getattr(arguments, name) for name in _ORIGIN}),
    )
    augmentation = Augmentation(arguments.augmentation, arguments.augmentations, arguments.seed)
    folder = source.output_folder(Path(arguments.output).expanduser())
    pipeline = None
    if pipeline_type is not None:
        passphrase_file = arguments.passphrase_file and Path(arguments.passphrase_file).expanduser().absolute()
        task = Task(
            output=folder.absolute(),
            root=images.root.absolute(),
            splits=tuple(split.name for split in images.splits) if images.tfds else None,
            reader=reader,
            key=KeyFile(Path(arguments.key).expanduser().absolute(), passphrase_file, key.fingerprint),
            encryption=method.spec,
            image_size=size,
            block_size=block_size,
            augmentation=augmentation,
            skip_unreadable=arguments.skip_unreadable,
        )
        pipeline = pipeline_type(task, images, arguments.runner, arguments.runner_option)
    if arguments.names:
        _write_names(Path(arguments.names).expanduser(), images, Path(arguments.output).expanduser())
    recipe = Recipe(size, encryptor, augmentation=augmentation, skip_unreadable=arguments.skip_unreadable)
    conversion.Conversion("encrypting", images, recipe, folder, header, key, pipeline).run()
    try:
        method.absorb(key, height=size, width=size)
    except UserError:
        return  # No model is adapted to this encryption, so that none gives it away.
    # Last, so that a mistake is one line.
    shared.warn_of_public_base(arguments)


def _import_pipeline(arguments: argparse.Namespace) -> type[BeamPipeline] | None:
    if not arguments.runner:
        if arguments.runner_option:
            raise UserError("--runner-option is for --runner")
        return None
    require("--runner", "beam", "apache_beam")
    # Beam warns at its import of what its other extras lack.
    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.WARNING))
    try:
        from ppvit_jax.offline.beam import BeamPipeline
    except ImportError as error:
        raise UserError(f"--runner needs Apache Beam ({error}): run pip install 'ppvit-jax[beam]'") from None
    finally:
        logging.disable(disabled)
    return BeamPipeline


def _write_names(path: Path, images: Images, output: Path) -> None:
    """Writes the list of names, which must not go to the cloud with the output."""
    if path.resolve().is_relative_to(output.resolve()):
        raise UserError(f"{path} lies in the output, which goes to the cloud: choose another place for --names")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent}: make it first, or choose another place for --names")
    with written_aside(path) as aside:
        # Names of files are bytes, which need not be text.
        with aside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = csv.writer(file)
            rows.writerow(["name", "original"])
            for split in images.splits:
                rows.writerows((split.output(index), split.original(index)) for index in range(split.count))
        if path.exists() and not filecmp.cmp(aside, path, shallow=False):
            raise UserError(f"{path} exists and is another list: choose another name for --names")
