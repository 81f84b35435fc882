"""Origin of an output folder: it tells whether a repeated command has the same images and options."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.identity import content_identity, former_identity
from ppvit_jax.data.listing import Images
from ppvit_jax.data.manifest import Header
from ppvit_jax.errors import UserError, print_note
from ppvit_jax.keys import SecretKey

# Hexadecimal digits of an authentication. An origin is one of images and options, and one of the options alone.
_LENGTH = 64


def add_origin(
    header: Header, key: SecretKey, images: Images, options: Mapping[str, object], folder: Path, augmentations: int
) -> Header:
    """Identifies the images by their content, and compares them with those that the output folder was made from.

    Args:
      header: description of the output folder, without an origin.
      key: the key that authenticates the origin, so that it reveals nothing to others.
      images: the input.
      options: options that decide the output, but that the header does not name.
      folder: the output folder, which may be complete, begun, new or missing.
      augmentations: number of augmented copies of each training image; 0 for the image itself.

    Returns:
      The header with its origin. For the folder of a former version, which compared names and sizes alone, it is the
      header of that version.

    Raises:
      UserError: the folder was made from other images with the same options.
    """
    by_options = key.authenticate(json.dumps(["options", dict(options)]).encode())
    present = _read_header(folder)
    if present and len(present.origin) == _LENGTH:
        former = key.authenticate(json.dumps([former_identity(images), dict(options)]).encode())
        candidate = dataclasses.replace(header, origin=former, copies=1)
        if candidate == present and _files_match(folder, images, augmentations):
            print_note(
                f"{folder} is from a former version of ppvit, which compared images by name and size only: if "
                "one was replaced since, choose a new folder"
            )
            return candidate
    by_content = key.authenticate(json.dumps([content_identity(images), dict(options)]).encode())
    header = dataclasses.replace(header, origin=by_content + by_options)
    differs = present and present != header and dataclasses.replace(present, origin=header.origin) == header
    if present and differs and present.origin[_LENGTH:] == by_options:
        raise UserError(
            f"{folder} was made from other images than those in {images.root}: images were added, removed, renamed "
            "or replaced since; choose a new folder"
        )
    return header


def _read_header(folder: Path) -> Header | None:
    """Returns the header that a begun or complete folder has; None if it has none that can be read."""
    journal = folder / manifests.JOURNAL
    try:
        if journal.exists():
            with journal.open("rb") as file:
                header = Header.from_fields(json.loads(file.readline()))
                return header if isinstance(header.origin, str) else None
        manifest = manifests.read(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest.header if manifest and manifest.folder == folder.absolute() else None


def _files_match(folder: Path, images: Images, augmentations: int) -> bool:
    """Returns True if all files of a folder of a former version have the names that they would have today."""
    if images.tfds is not None:
        return True
    names = set()
    for number in range(images.count):
        item = images.item(number)
        copies = [f"_{copy}" for copy in range(augmentations)] if item.augments and augmentations else [""]
        names |= {f"{item.output}{copy}.png" for copy in copies}
    return names.issuperset(_list_written(folder))


def _list_written(folder: Path) -> Iterable[str]:
    journal = folder / manifests.JOURNAL
    if not journal.exists():
        manifest = manifests.read(folder)
        return manifest.files if manifest else ()
    written = []
    with journal.open("rb") as file:
        next(file, None)
        for line in file:
            try:
                written += json.loads(line)
            except ValueError:
                break
    return written
