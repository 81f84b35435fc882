"""The command `ppvit encrypt`: encrypts images into PNG files, or a tfds data set into another."""

from __future__ import annotations

import argparse
import csv
import filecmp
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ppvit_jax.command_line import Number
from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.commands.shared import conversion, model_sizes
from ppvit_jax.commands.shared.encryption_choices import image_encryptions
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.augmentation import AUGMENTATIONS
from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.listing import Images
from ppvit_jax.errors import COUNT_OR_NONE, SEED, UserError, print_note, require, resuming
from ppvit_jax.files import written_aside
from ppvit_jax.offline.recipe import Augmentation, Recipe, make_encryptor
from ppvit_jax.offline.worker import KeyFile, Task

if TYPE_CHECKING:
    from ppvit_jax.offline.beam import BeamPipeline

_RUNNERS = ("DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner", "PortableRunner", "PrismRunner")
# Options that decide the output, but that the manifest does not name.
_ORIGIN = ("resize", "augmentations", "augmentation", "seed", "keep_names")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments and description."""
    describe(
        parser,
        "Encrypts images with a secret key. The owner runs it: it reads plain images and the key, and writes encrypted "
        "PNG files or an encrypted tfds data set, with a manifest, to give to the cloud. If it is interrupted, run the "
        "same command again: it resumes and writes identical files.",
        "ppvit encrypt --key secret.key --input images --output encrypted --names names.csv",
        "ppvit encrypt --key secret.key --tfds cifar10 --splits train,test --output encrypted",
        "ppvit encrypt --key secret.key --parquet dataset --output encrypted",
        "ppvit encrypt --key secret.key --csv images.csv --output encrypted",
    )
    shared.add_key(parser)
    conversion.add_arguments(parser, labeled=True)
    default = shared.DEFAULT_ENCRYPTION
    shared.add_encryption(parser, image_encryptions(), "encryption of the images", "default: %(default)s", default)
    shared.add_base_is_public(parser)
    model_sizes.add_checkpoint(parser)
    shared.add_sizes(parser)
    shared.add_resize(parser, recorded=True)
    parser.add_argument(
        "--augmentations",
        action=Number,
        range=COUNT_OR_NONE,
        default=0,
        metavar="N",
        help="number of augmented copies to write in place of each training image; 0 writes the image itself "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--augmentation",
        choices=[name for name in AUGMENTATIONS if name != "none"],
        default="flip+crop",
        help="augmentation of the copies that --augmentations asks for (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        action=Number,
        range=SEED,
        default=0,
        metavar="N",
        help="seed of the augmentation, 0 or more (default: %(default)s)",
    )
    parser.add_argument(
        "--keep-names",
        action="store_true",
        help="keep the files' names, which can reveal what the images show (default: replace them by numbers)",
    )
    parser.add_argument(
        "--names",
        metavar="FILE",
        help="CSV file to write for yourself, which lists the number and the original name of each image",
    )
    parser.add_argument(
        "--runner",
        choices=_RUNNERS,
        help="encrypt on this Apache Beam runner, as docs/beam.md describes; needs pip install 'ppvit-jax[beam]' "
        "(default: encrypt in this process)",
    )
    parser.add_argument(
        "--runner-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the Beam runner, such as region=europe-west1; repeat it for further options",
    )


@resuming()
def run(arguments: argparse.Namespace) -> None:
    """Encrypts, continuing where an interrupted run of the same command stopped.

    Raises:
      UserError: the arguments or files cannot be used.
    """
    pipeline_type = _import_pipeline(arguments)
    key = shared.open_key(arguments.key, arguments.passphrase_file)
    notes = model_sizes.settle(arguments, key)
    size, block_size = arguments.image_size, arguments.block_size
    method = conversion.open_image_encryption(arguments.encryption, block_size)
    encryptor = make_encryptor(method, method.derive(key, height=size, width=size))
    source = conversion.parse_input(arguments)
    manifest = manifests.read(source.folder)
    conversion.check_plain(manifest)
    reader = ImageReader(size, arguments.resize, arguments.max_pixels)
    images = source.open(reader, keep_names=arguments.keep_names, manifest=manifest)
    if images.copies > 1 and arguments.augmentations:
        raise UserError(
            f"the images in {images.root} are augmented copies already: leave --augmentations out, or encrypt the "
            "original images"
        )
    header = manifests.Header(
        encryption=method.spec,
        key_fingerprint=key.fingerprint,
        image_size=size,
        block_size=block_size,
        origin="",
        copies=max(arguments.augmentations, images.copies),
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
    options = {name: getattr(arguments, name) for name in _ORIGIN}
    for note in notes:
        print_note(note)
    conversion.Conversion("encrypting", images, recipe, folder, header, key, options, pipeline).run()
    try:
        method.absorb(key, height=size, width=size)
    except UserError:
        return  # No model can be adapted to this encryption, so no model gives the key away.
    # The warning comes last, so that a mistake prints one line alone.
    shared.warn_of_public_base(arguments)


def _import_pipeline(arguments: argparse.Namespace) -> type[BeamPipeline] | None:
    if not arguments.runner:
        if arguments.runner_option:
            raise UserError("--runner-option needs a --runner: name one, or leave the option out")
        return None
    require("--runner", "beam", "apache_beam")
    # On import, Beam warns about the packages that its other extras lack.
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
        # Names of files are bytes, and not always text.
        with aside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = csv.writer(file)
            rows.writerow(["name", "original"])
            for split in images.splits:
                rows.writerows((split.output(index), split.original(index)) for index in range(split.count))
        if path.exists() and not filecmp.cmp(aside, path, shallow=False):
            raise UserError(f"{path} exists with other content: choose another file for --names")
