"""Manifest of a folder written by `ppvit encrypt` or `decrypt`: the encryption, the sizes and every file's SHA-256.

`manifest.json` is at the top of the folder and is written last. It ends with its own SHA-256, which detects accidental
changes, and with a message authentication code under the owner's key, which detects deliberate ones: the owner's
commands check it, and computing it needs the key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from ppvit_jax.data.progress import Progress
from ppvit_jax.encryption import parse
from ppvit_jax.errors import SIDE, UserError
from ppvit_jax.files import written_aside

NAME = "manifest.json"
# List of finished work; while it exists, the folder is incomplete.
JOURNAL = ".unfinished.jsonl"
# Files being written and notes of a pipeline's workers; both exist only as long as the journal.
UNFINISHED = ".unfinished"
FORMAT, VERSION = "ppvit-images", 1
# Attributes of `Header` whose names in the file differ.
_FIELD_NAMES = {"block_size": "patch_size"}
# Fields that are written only if they differ from these values, so that other manifests keep their digest.
_OPTIONAL = {"copies": 1}
_BEGINNING = f'{{\n "format": "{FORMAT}"'.encode()
_SEARCHED = 1000
# Fields by which a manifest is recognized if its format is damaged.
_FIELDS = {"key_fingerprint", "patch_size", "files"}
# An origin of a version that did not record the number of copies is a single SHA-256.
_FORMER_ORIGIN_LENGTH = 64


@dataclasses.dataclass(frozen=True)
class Header:
    """Description of a folder's images.

    Attributes:
      encryption: "none", or a method with its options, as `ppvit_jax.encryption.create` reads it.
      key_fingerprint: fingerprint of the key that encrypted the images; None for plain images.
      image_size, block_size: side of every image and of its blocks, in pixels.
      origin: identifier of the input images and the options that made the folder. It is computed under the owner's key,
        so that it reveals nothing to others.
      copies: number of files that each training image became, named STEM_0.png, STEM_1.png and so on. No split may
        separate them.
    """

    encryption: str
    key_fingerprint: str | None
    image_size: int
    block_size: int
    origin: str
    copies: int = 1

    @property
    def records_copies(self) -> bool:
        """False for a folder of a former version, which may have copies although the number is 1."""
        return len(self.origin) != _FORMER_ORIGIN_LENGTH

    def fields(self) -> dict[str, str | int | None]:
        """Returns the fields under their names in the file."""
        return {
            _FIELD_NAMES.get(name, name): value
            for name, value in vars(self).items()
            if name not in _OPTIONAL or value != _OPTIONAL[name]
        }

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Header:
        """Inverts `fields`, and ignores other fields.

        Raises:
          KeyError: a field is missing.
        """
        fields = _OPTIONAL | fields
        return cls(
            **{field.name: fields[_FIELD_NAMES.get(field.name, field.name)] for field in dataclasses.fields(cls)}
        )


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Manifest that was read from a file and whose SHA-256 is right.

    Attributes:
      folder: absolute path of the manifest's folder.
      header: description of the images.
      files: SHA-256 of each file, in hexadecimal, by its path inside the folder, with "/".
      digest: SHA-256 of header and files, in hexadecimal.
      authentication: HMAC of the digest under the owner's key; None for plain images written without a key.
    """

    folder: Path
    header: Header
    files: dict[str, str]
    digest: str
    authentication: str | None

    def sha256(self, path: Path) -> str:
        """Returns the SHA-256 of a file, in hexadecimal; "", which matches no content, if the file is not listed."""
        return self.files.get(self._name(path), "")

    def check_listing(self, present: Iterable[str], below: Path) -> None:
        """Compares the files in a folder with those that the manifest lists.

        Args:
          present: the files' paths inside `below`.
          below: the manifest's folder or a folder inside it.

        Raises:
          UserError: a file is missing or not listed; the message names the first one.
        """
        start = PurePosixPath(self._name(below))
        names = {(start / path).as_posix() for path in present}
        prefix = start.parts
        expected = {name for name in self.files if PurePosixPath(name).parts[: len(prefix)] == prefix}
        for fault, wrong in (("not in", sorted(names - expected)), ("missing, but in", sorted(expected - names))):
            if wrong:
                others = f" (and {len(wrong) - 1} others)" if len(wrong) > 1 else ""
                raise UserError(f"{self.folder / wrong[0]}{others} is {fault} the manifest: {_REMEDY}")

    def check_files(self) -> None:
        """Compares every file with the manifest, reading each in pieces.

        Raises:
          UserError: a file is missing or has other content.
        """
        progress = Progress(f"checking {self.folder}", len(self.files), "files")
        for number, (name, expected) in enumerate(self.files.items(), start=1):
            try:
                with (self.folder / name).open("rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise UserError(f"cannot read {self.folder / name} ({error.strerror}): {_REMEDY}") from None
            if sha256 != expected:
                raise UserError(f"{self.folder / name} is not the file that the manifest describes: {_REMEDY}")
            progress.update(number)
        progress.close()

    def _name(self, path: Path) -> str:
        return path.absolute().relative_to(self.folder).as_posix()


_REMEDY = "get the folder again from its owner"


def check_content(path: Path, content: bytes, sha256: str) -> None:
    """Compares one file's content with its SHA-256 in the manifest, in hexadecimal.

    Raises:
      UserError: the content differs.
    """
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path} is not the file that the manifest describes: {_REMEDY}")


def read(folder: Path) -> Manifest | None:
    """Reads a folder's manifest, or that of one of the two folders above it if it lists files in this folder.

    Returns:
      The manifest; None for a folder without one, whose images come from elsewhere.

    Raises:
      UserError: the manifest is damaged or was changed, or the folder is incomplete.
    """
    folder = folder.absolute()
    own = _read(folder)
    for above in () if own else list(folder.parents)[:2]:
        try:
            candidate = _read(above)
        except UserError:
            # It may be another project's file of that name. If it is ours, a command on that folder reports the error.
            continue
        prefix = f"{folder.relative_to(above).as_posix()}/"
        if candidate and any(name.startswith(prefix) for name in candidate.files):
            return candidate
    return own


def _read(folder: Path) -> Manifest | None:
    path = folder / NAME
    if (folder / JOURNAL).exists():
        raise UserError(f"{folder} is not complete: run the command that writes it again, and it resumes")
    try:
        content = _parse(path.read_bytes())
        if content is None:
            return None
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise UserError(f"{path} has another version than {VERSION}, which this program reads: update this program")
        header = Header.from_fields(content)
        files: dict[str, str] = content["files"]
        digest = _digest(header, files.items()).hex()
        if digest != content["sha256"]:
            raise UserError(f"{path} was changed or damaged (its SHA-256 does not match): {_REMEDY}")
        manifest = Manifest(folder, header, files, digest, content["authentication"])
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path} is damaged, or not a manifest of ppvit: {_REMEDY}") from None
    _check_values(path, manifest)
    return manifest


def _parse(text: bytes) -> dict[str, Any] | None:
    """Parses a manifest of this program; returns None for another program's file of that name.

    Raises:
      ValueError: the manifest is damaged.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        # A file that was cut short ends within the first field, or has it.
        if _BEGINNING.startswith(text) or b'"ppvit-' in text[:_SEARCHED] or b'"key_fingerprint"' in text[:_SEARCHED]:
            raise ValueError("not JSON") from None
        return None
    if not isinstance(content, dict):
        return None
    is_ours = str(content.get("format", "")).startswith("ppvit") or content.keys() >= _FIELDS
    return content if is_ours else None


def write(
    folder: Path, header: Header, files: Iterable[tuple[str, str]], authenticate: Callable[[bytes], str] | None
) -> None:
    """Writes a folder's manifest in constant memory; the file is complete or absent.

    Args:
      folder: the folder with the images.
      header: description of the images.
      files: (path inside the folder, SHA-256) of each file; iterated once.
      authenticate: the owner's `SecretKey.authenticate`; None without a key.
    """
    with written_aside(folder / NAME) as aside, aside.open("w") as file:
        fields = {"format": FORMAT, "version": VERSION, **header.fields()}
        for name, value in fields.items():
            file.write(f"{'{' if name == 'format' else ','}\n {json.dumps(name)}: {json.dumps(value)}")
        file.write(',\n "files": {')

        def write_each() -> Iterable[tuple[str, str]]:
            for number, (name, sha256) in enumerate(files):
                file.write(f"{',' if number else ''}\n  {json.dumps(name)}: {json.dumps(sha256)}")
                yield name, sha256

        digest = _digest(header, write_each())
        authentication = authenticate(digest) if authenticate else None
        file.write(f'\n }},\n "sha256": "{digest.hex()}",\n "authentication": {json.dumps(authentication)}\n}}\n')
        file.flush()
        os.fsync(file.fileno())


def _digest(header: Header, files: Iterable[tuple[str, str]]) -> bytes:
    digest = hashlib.sha256(json.dumps(header.fields(), sort_keys=True).encode())
    for name, sha256 in files:
        digest.update(f"\n{sha256} {json.dumps(name)}".encode())
    return digest.digest()


def _check_values(path: Path, manifest: Manifest) -> None:
    """Checks the values. The SHA-256 is not enough, because anyone who changes a manifest can recompute it."""
    header = manifest.header
    sizes = (header.image_size, header.block_size)
    possible = all(isinstance(size, int) and 0 < size <= SIDE.most for size in sizes)
    if not possible or header.image_size % header.block_size:
        raise UserError(f"{path} has impossible sizes, {sizes[0]} and {sizes[1]}: {_REMEDY}")
    texts = (header.encryption, header.origin, header.key_fingerprint or "")
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{path} has an encryption, an origin or a key that is no text: {_REMEDY}")
    if not isinstance(header.copies, int) or header.copies < 1:
        raise UserError(f"{path} has {header.copies!r} copies of an image: {_REMEDY}")
    if header.encryption != "none":
        parse(header.encryption, header.block_size)
    if (header.key_fingerprint is None) != (header.encryption == "none"):
        raise UserError(f"{path} names encryption {header.encryption!r} but key {header.key_fingerprint!r}: {_REMEDY}")
    for name, sha256 in manifest.files.items():
        if not isinstance(sha256, str):
            raise UserError(f"{path} has no SHA-256 of {name}: {_REMEDY}")
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or name != str(place):
            raise UserError(f"{path} lists {name!r}, a path outside the folder: do not trust it")
