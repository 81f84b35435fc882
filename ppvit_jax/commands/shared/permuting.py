"""What `ppvit encrypt` and `ppvit decrypt` share."""

import argparse
import csv
import filecmp
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.data import tfds_source
from ppvit_jax.data.listing import Decoding, Images, open_files, open_tfds
from ppvit_jax.data.manifest import Header, Manifest
from ppvit_jax.encryption import Encryption, Secret
from ppvit_jax.errors import UserError
from ppvit_jax.files import written_aside
from ppvit_jax.keys import SecretKey
from ppvit_jax.offline.journal import Journal
from ppvit_jax.offline.memory import peak_memory
from ppvit_jax.offline.outputs import write_files, write_tfds
from ppvit_jax.offline.permute import Recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of input and output."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", metavar="DIR|FILE", help="a folder of class folders, any folder of images, or one")
    source.add_argument("--tfds", metavar="NAME", help="a data set that tfds has prepared, such as cifar10")
    parser.add_argument("--data-dir", default="", metavar="DIR", help="folder of prepared data sets, for --tfds")
    parser.add_argument("--splits", default="", metavar="NAMES", help="such as train,test (default: all), for --tfds")
    parser.add_argument("--output", required=True, metavar="DIR", help="a new folder; the same one continues")
    parser.add_argument(
        "--max-pixels", type=int, default=89_478_485, help="refuse larger images (default: %(default)s)"
    )
    parser.add_argument("--skip-unreadable", action="store_true", help="leave out images that cannot be read")


def input_folder(arguments: argparse.Namespace) -> Path:
    """The folder of images that the arguments name: for one file the one it lies in.

    Raises:
      UserError: there is none, or the output lies in it.
    """
    if arguments.tfds:
        return tfds_source.find_prepared(arguments.tfds, arguments.data_dir)
    if arguments.data_dir or arguments.splits:
        raise UserError("--data-dir and --splits are for --tfds")
    path, output = Path(arguments.input).expanduser(), Path(arguments.output).expanduser()
    if path.is_dir() and output.resolve().is_relative_to(path.resolve()):
        raise UserError(f"the output {output} lies in the input {path}: choose a folder outside")
    if not path.exists():
        raise UserError(f"there is no {path}: give a folder of images, or one image, as --input")
    return path if path.is_dir() else path.parent


def open_images(
    arguments: argparse.Namespace, decoding: Decoding, *, keep_names: bool, manifest: Manifest | None
) -> Images:
    """The images that the arguments name.

    Raises:
      UserError: there are none, or they cannot be read.
    """
    if arguments.tfds:
        splits = [name for name in arguments.splits.split(",") if name]
        return open_tfds(input_folder(arguments), splits, decoding)
    return open_files(Path(arguments.input).expanduser(), decoding, keep_names=keep_names, manifest=manifest)


def open_encryption(spec: str, block_size: int, key: SecretKey, image_size: int) -> tuple[Encryption, Secret]:
    """An encryption and its secret for images of this size.

    Raises:
      UserError: an unknown encryption, one whose results are not images, or sizes that do not fit.
    """
    method = shared.open_encryption(spec, block_size)
    if method.encodes:
        raise UserError(f"--encryption {spec} does not give images: use it while training, by config.encryption")
    return method, method.derive(key, height=image_size, width=image_size)


def origin(key: SecretKey, images: Images, options: dict[str, Any]) -> str:
    """Identifies images and options to the owner alone; see `ppvit_jax.data.manifest.Header`."""
    return key.authenticate(json.dumps([images.identity, options]).encode())


def permute(
    arguments: argparse.Namespace,
    images: Images,
    key: SecretKey,
    change: Callable[[np.ndarray, int], np.ndarray],
    header: Header,
    *,
    resizes: bool = True,
    copies: int = 0,
    augmentation: str = "none",
    seed: int = 0,
    names: Path | None = None,
    pipeline: Callable[[Journal, Recipe], None] | None = None,
) -> None:
    """Writes the output folder and says what was done.

    `pipeline` has other machines write what the journal lacks, and the journal take their records.

    Raises:
      UserError: anything that the user can put right.
    """
    size = header.image_size
    recipe = Recipe(size, change, resizes=resizes, copies=copies, augmentation=augmentation, seed=seed)
    output = Path(arguments.output).expanduser()
    if names is not None:
        if names.resolve().is_relative_to(output.resolve()):
            raise UserError(f"{names} lies in the output, which goes to the cloud: choose another place for --names")
        if not names.parent.is_dir():
            raise UserError(f"there is no folder {names.parent}: make it first, or choose another place for --names")
    folder = output
    if images.dataset is not None:
        # As tfds lays them out, so that --data-dir or config.data.dir can name the output.
        folder = output / arguments.tfds.partition(":")[0] / images.dataset[1]
    started = time.monotonic()
    if names is not None:
        _write_names(names, images)
    with Journal(folder, header, key.authenticate) as journal:
        if journal.complete:
            print(f"{folder} is complete already: nothing to do")
            return
        before = journal.begun
        if pipeline is not None:
            pipeline(journal, recipe)
        write = write_files if images.dataset is None else write_tfds
        left_out = write(
            images, recipe, journal, what=f"{arguments.command}ing", skip_unreadable=arguments.skip_unreadable
        )
    for message in left_out:
        print(f"left out: {message}", file=sys.stderr)
    if images.ignored:
        print(f"left out: {images.ignored:,} files that are not images")
    count = images.count
    seconds = time.monotonic() - started
    if before:
        print(f"{folder}: {count:,} images, continued where it had stopped")
    else:
        print(f"{folder}: {count:,} images in {seconds:.1f} s, {count / seconds:.0f} images/s, {peak_memory()}")
    what = (
        f"encryption {header.encryption}, key fingerprint {header.key_fingerprint}"
        if header.key_fingerprint
        else "plain"
    )
    print(f"{what}, {size}x{size} pixels")


def _write_names(path: Path, images: Images) -> None:
    with written_aside(path) as aside:
        # Names of files are bytes, which need not be text.
        with aside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = csv.writer(file)
            rows.writerow(["name", "original"])
            for split in images.splits:
                rows.writerows((split.output(index), split.original(index)) for index in range(split.count))
        if path.exists() and not filecmp.cmp(aside, path, shallow=False):
            raise UserError(f"{path} exists and is another list: choose another name for --names")
