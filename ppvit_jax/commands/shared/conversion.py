"""Conversion of images into a new folder: input, output and summary of `ppvit encrypt` and `ppvit decrypt`."""

import argparse
import dataclasses
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ppvit_jax.commands.shared import labeled_input
from ppvit_jax.commands.shared.arguments import add_data_dir, add_max_pixels, open_encryption
from ppvit_jax.commands.shared.labeled_input import LabeledInput
from ppvit_jax.commands.shared.origin import add_origin
from ppvit_jax.data import tfds_source
from ppvit_jax.data.class_depth import printable
from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.labeled.label_list import write_label_list
from ppvit_jax.data.labeled.opening import number_images
from ppvit_jax.data.listing import Images, open_files, open_tfds
from ppvit_jax.data.manifest import Header, Manifest
from ppvit_jax.encryption import Encryption
from ppvit_jax.errors import UserError, print_warning
from ppvit_jax.keys import SecretKey
from ppvit_jax.offline.journal import Journal
from ppvit_jax.offline.memory import peak_memory
from ppvit_jax.offline.outputs import write_files, write_tfds
from ppvit_jax.offline.recipe import Recipe


class Pipeline(Protocol):
    """Other machines that do a part of a conversion, such as `ppvit_jax.offline.beam.BeamPipeline`."""

    def run(self, journal: Journal) -> None:
        """Has other machines write the files that the journal lacks, and adds their records to the journal.

        Raises:
          UserError: the arguments or files cannot be used.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Input:
    """Images that --input, --tfds or an option for labeled images names.

    Attributes:
      path: a folder, one image, or the version folder of a data set that tfds has prepared.
      tfds_name: the name of such a data set; None for files.
      splits: the splits to read of such a data set; empty for all.
      skip_unreadable: True leaves out links to nothing and folders that cannot be read.
      labeled: labeled images in files of other formats; None for files and tfds.
    """

    path: Path
    tfds_name: str | None = None
    splits: tuple[str, ...] = ()
    skip_unreadable: bool = False
    labeled: LabeledInput | None = None

    @property
    def folder(self) -> Path:
        """The folder of the images; for a single file, the folder that holds it."""
        return self.path if self.path.is_dir() else self.path.parent

    def open(self, reader: ImageReader, *, keep_names: bool, manifest: Manifest | None) -> Images:
        """Opens the images.

        Raises:
          UserError: there are no images, or they cannot be read.
        """
        if self.tfds_name is not None:
            return open_tfds(self.path, self.splits, reader)
        if self.labeled is not None:
            return _open_labeled(self.labeled, reader)
        return open_files(
            self.path, reader, keep_names=keep_names, manifest=manifest, skip_unreadable=self.skip_unreadable
        )

    def output_folder(self, output: Path) -> Path:
        """Returns the folder to write; for a tfds data set its version folder, so that --data-dir names the output."""
        return output if self.tfds_name is None else output / self.tfds_name / self.path.name


@dataclasses.dataclass(frozen=True)
class Conversion:
    """The work of a command, ready to run.

    Attributes:
      activity: word for the progress line, "encrypting" or "decrypting".
      images: the input.
      recipe: turns each image into its files.
      folder: the folder to write.
      header: the description of the folder, without an origin.
      key: the key that authenticates the manifest.
      options: options that decide the output, but that the header does not name.
      pipeline: other machines that do the work; None for this one alone.
    """

    activity: str
    images: Images
    recipe: Recipe
    folder: Path
    header: Header
    key: SecretKey
    options: Mapping[str, object]
    pipeline: Pipeline | None = None

    def run(self) -> None:
        """Writes the folder and prints a summary.

        Raises:
          UserError: the arguments or files cannot be used.
        """
        folder, images = self.folder, self.images
        started = time.monotonic()
        augmentations = self.recipe.augmentation.copies
        header = add_origin(self.header, self.key, images, self.options, folder, augmentations)
        with Journal(folder, header, self.key.authenticate) as journal:
            if journal.complete:
                self._write_labels()
                print(f"{folder} is already complete: there is nothing to do")
                return
            images.print_summary()
            begun = journal.begun
            if self.pipeline is not None:
                self.pipeline.run(journal)
            write = write_files if images.tfds is None else write_tfds
            written = write(images, self.recipe, journal, activity=self.activity)
        self._write_labels()
        for message in written.left_out:
            print(f"left out: {message}", file=sys.stderr)
        for name in written.lost_classes:
            print_warning(f"no image of {printable(name)} could be read, so the output lacks it")
        count, seconds = written.count, time.monotonic() - started
        skipped = f", {images.count - count:,} left out" if images.count > count else ""
        if begun:
            print(f"{folder}: {count:,} images{skipped}, resumed after an interruption")
        else:
            rate = f"{count / seconds:.0f} images/s, {peak_memory()}"
            print(f"{folder}: {count:,} images{skipped} in {seconds:.1f} s, {rate}")
        fingerprint = header.key_fingerprint
        result = f"encryption {header.encryption}, key fingerprint {fingerprint}" if fingerprint else "plain"
        print(f"{result}, {header.image_size}x{header.image_size} pixels")

    def _write_labels(self) -> None:
        if self.images.labels is not None:
            write_label_list(self.folder, self.images.labels())


def add_arguments(parser: argparse.ArgumentParser, *, labeled: bool = False) -> None:
    """Adds the arguments of input and output; with `labeled`, those of labeled images in files of other formats."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", metavar="PATH", help="folder of images, with class folders or without; or one image")
    source.add_argument("--tfds", metavar="NAME", help="data set that tfds has prepared, such as cifar10")
    if labeled:
        labeled_input.add_formats(source)
        labeled_input.add_columns(parser)
    add_data_dir(parser)
    parser.add_argument(
        "--splits",
        default="",
        metavar="NAMES",
        help=f"splits to read for --tfds{' or labeled images' if labeled else ''}, separated by commas, such as "
        "train,test (default: all)",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="folder to write: a new one, or that of an interrupted run of the same command, which resumes",
    )
    add_max_pixels(parser)
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out images that cannot be read (default: stop at the first one)",
    )


def parse_input(arguments: argparse.Namespace) -> Input:
    """Reads the arguments of the input.

    Raises:
      UserError: there is no such folder or data set, or the output lies in it.
    """
    if arguments.tfds:
        path = tfds_source.find_prepared(arguments.tfds, arguments.data_dir)
        splits = tuple(name for name in arguments.splits.split(",") if name)
        return Input(path, arguments.tfds.partition(":")[0], splits)
    named = labeled_input.parse_format(arguments) if "csv" in arguments else None
    if arguments.data_dir or (arguments.splits and not named):
        raise UserError("--data-dir and --splits need --tfds: leave them out for --input")
    if named:
        _check_labeled(named, arguments)
        return Input(named.path, splits=named.splits, labeled=named)
    path, output = Path(arguments.input).expanduser(), Path(arguments.output).expanduser()
    if path.is_dir() and output.resolve().is_relative_to(path.resolve()):
        raise UserError(f"the output {output} lies in the input {path}: choose a folder outside")
    if not path.exists():
        raise UserError(f"there is no {path}: give a folder of images, or one image, as --input")
    return Input(path, skip_unreadable=arguments.skip_unreadable)


def _check_labeled(named: LabeledInput, arguments: argparse.Namespace) -> None:
    """Raises UserError for options that need image files."""
    for option, value in (("--keep-names", arguments.keep_names), ("--runner", arguments.runner)):
        if value:
            raise UserError(f"{option} is for image files and tfds: leave it out for --{named.format}")
    output = Path(arguments.output).expanduser()
    if named.path.is_dir() and output.resolve().is_relative_to(named.path.resolve()):
        raise UserError(f"the output {output} lies in the input {named.path}: choose a folder outside")


def _open_labeled(named: LabeledInput, reader: ImageReader) -> Images:
    """Opens labeled images to encrypt.

    Raises:
      UserError: they cannot be read, are encrypted already, or have labels that cannot be written.
    """
    collection = named.open(labeled=False)
    check_plain(collection.manifest)
    return number_images(collection, named.splits, reader, for_folders=True)


def check_plain(manifest: Manifest | None) -> None:
    """Raises UserError if a manifest says that its images are encrypted."""
    if manifest and manifest.header.encryption != "none":
        raise UserError(
            f"the images in {manifest.folder} are already encrypted with the key of fingerprint "
            f"{manifest.header.key_fingerprint}: decrypt them before you encrypt them with another key"
        )


def open_image_encryption(spec: str, block_size: int) -> Encryption:
    """Opens an encryption whose results are images.

    Raises:
      UserError: the encryption is unknown, or its results are not images.
    """
    method = open_encryption(spec, block_size)
    if method.encodes:
        raise UserError(f"--encryption {spec} gives no images: use it while training, by config.encryption")
    return method
