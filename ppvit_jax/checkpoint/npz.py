"""Files in Google's `.npz` layout: arrays by name, and the metadata.

The metadata (key fingerprint, encryption, sizes) is in the zip archive's comment, which other loaders never read. A
comment holds 65,535 bytes. A larger record is complete in the comments of the archive's members, compressed; the
archive's own comment then has all but the class names.
"""

import dataclasses
import hashlib
import importlib.resources
import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict

from ppvit_jax.checkpoint.content import recognize, refusal
from ppvit_jax.checkpoint.delta import refusal as delta_refusal
from ppvit_jax.checkpoint.metadata import Metadata
from ppvit_jax.errors import UserError
from ppvit_jax.files import local_path, written_aside
from ppvit_jax.models import Params

# Training states of the original code keep the parameters under one of these prefixes.
_PREFIXES = ("opt/target/", "params/", "target/")
EMBEDDED = "vit_micro8_64_tiny_imagenet.npz"
_COMMENT = b"ppvit "
# Far more than the names of any model's classes need.
_MAX_METADATA = 2**26
# Weights hardly compress; a file that expands more than this is meant to fill the memory.
_MAX_EXPANSION = 100


def resolve(name: str, sha256: str = "") -> Path:
    """Returns the path of a checkpoint that a user names.

    Args:
      name: a path, or "embedded" for the small checkpoint in the package. `hf:OWNER/NAME` and `https://...` are
        downloaded, unless they are in the cache.
      sha256: the SHA-256 of a URL's file; "" if the URL ends with #sha256=HEX.

    Returns:
      The file, or the folder of a repository on the hub.

    Raises:
      UserError: the name is wrong, or the checkpoint cannot be downloaded.
    """
    if name == "embedded":
        return Path(str(importlib.resources.files("ppvit_jax") / "assets" / EMBEDDED))
    if is_remote(name):
        # Takes a tenth of a second to import, which programs with local files need not pay.
        from ppvit_jax.checkpoint import hub

        return hub.fetch_once(name, sha256).path
    return local_path(name)


def is_remote(name: str) -> bool:
    """Returns True for `hf:OWNER/NAME` and `https://...`, which name a checkpoint on the hub or in the web."""
    return name.startswith(("hf:", "https://")) and not name.startswith("hf:/")


def read(
    path: str | os.PathLike, sha256: str = "", skip: tuple[str, ...] = (), *, delta: bool = False
) -> tuple[dict[str, np.ndarray], Metadata]:
    """Reads a `.npz` checkpoint.

    Args:
      path: the file.
      sha256: the SHA-256 that the file must have, in hexadecimal; "" accepts any file.
      skip: prefixes of names whose arrays are not read, such as "head/".
      delta: True accepts a delta as well, which holds the trained tensors alone.

    Returns:
      The arrays by name, such as "Transformer/encoderblock_0/LayerNorm_0/scale", and the metadata. The names lose the
      prefixes `opt/target/`, `target/` and `params/`, and an optimizer's state beside them is dropped. A file without
      metadata gets that of a plain model.

    Raises:
      UserError: the file is missing, truncated, damaged or not a `.npz` file, it has another SHA-256, it is a delta, or
        its content is hostile: pickled Python objects, paths as names, or arrays far larger than the file. Or it has
        values that are NaN or infinite.
    """
    path = local_path(path)
    try:
        kind = recognize(path)
        if kind not in ("npz", "damaged", "unknown"):
            raise UserError(f"the checkpoint {refusal(path, kind, 'a .npz file')}")
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror}") from None
    with file:
        try:
            digest = hashlib.file_digest(file, "sha256").hexdigest() if sha256 else ""
            if digest != sha256.lower():
                raise UserError(
                    f"the checkpoint {path} has the SHA-256 {digest} and not {sha256.lower()}: download it again"
                )
            # Python would also find an archive behind other content.
            file.seek(0)
            if file.read(2) != b"PK":
                raise zipfile.BadZipFile("it does not start like a zip archive")
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                _refuse_traps(path, members, file.seek(0, os.SEEK_END))
                names = {member: member.filename.removesuffix(".npy") for member in members}
                prefix = next((p for p in _PREFIXES if any(name.startswith(p) for name in names.values())), "")
                arrays = {
                    name.removeprefix(prefix): _recover_bfloat16(_read_array(file, archive, member))
                    for member, name in names.items()
                    if name.startswith(prefix) and not name.removeprefix(prefix).startswith(skip)
                }
                metadata = _read_metadata(archive)
        except UserError:
            raise
        # A damaged file can raise almost anything: numpy parses an array's header as a Python expression.
        except Exception as error:
            if "Object arrays cannot be loaded" in str(error):
                raise UserError(
                    f"the checkpoint {path} holds pickled Python objects, which could run code: do not trust it"
                ) from None
            raise UserError(
                f"the checkpoint {path} is truncated, damaged or not a .npz file ({error}): download it again"
            ) from None
    if metadata.delta is not None and not delta:
        raise UserError(delta_refusal(path, metadata.delta, metadata.encryption))
    check_finite(arrays, f"the checkpoint {path}")
    return arrays, metadata


def is_delta(path: Path) -> bool:
    """Returns True for a delta, and False for any other file or folder, also for one that cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_metadata(archive).delta is not None
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError):
        return False


def check_finite(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Checks that arrays have neither NaN nor infinite values.

    Args:
      arrays: arrays of any dtype, by name.
      where: the name of the file or model that holds them, for the message.

    Raises:
      UserError: a value is not finite; the message names the first such array.
    """
    for name, array in arrays.items():
        if not _is_finite(array):
            raise UserError(
                f"{where} has values that are not finite (NaN or infinity) in {name}: its training diverged or the "
                "file is damaged, so use another checkpoint"
            )


def write(path: str | os.PathLike, params: Params, metadata: Metadata) -> None:
    """Writes params in Google's layout, uncompressed; the file is complete or absent.

    Raises:
      UserError: a value is not finite, or the metadata does not fit into the archive's comments.
    """
    path = Path(path)
    arrays = {name: np.asarray(jax.device_get(array)) for name, array in flatten_dict(params, sep="/").items()}
    check_finite(arrays, f"the model for {path}")
    with written_aside(path) as aside:
        with aside.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        with zipfile.ZipFile(aside, "a") as archive:
            _write_metadata(archive, metadata)


def _read_metadata(archive: zipfile.ZipFile) -> Metadata:
    if not archive.comment.startswith(_COMMENT):
        return Metadata()
    pieces = [member.comment[len(_COMMENT) :] for member in archive.infolist() if member.comment.startswith(_COMMENT)]
    if not pieces:
        return Metadata.from_json(archive.comment[len(_COMMENT) :])
    reader = zlib.decompressobj()
    text = reader.decompress(b"".join(pieces), _MAX_METADATA)
    if not reader.eof:
        raise ValueError("the metadata is incomplete or too large")
    return Metadata.from_json(text)


def _write_metadata(archive: zipfile.ZipFile, metadata: Metadata) -> None:
    text = metadata.to_json().encode()
    if len(_COMMENT) + len(text) > zipfile.ZIP_MAX_COMMENT:
        members, compressed = archive.infolist(), zlib.compress(text, 9)
        size = -(-len(compressed) // len(members))
        if len(_COMMENT) + size > zipfile.ZIP_MAX_COMMENT:
            raise UserError(f"the checkpoint's metadata has {len(text):,} bytes, which is too much: shorten its names")
        for number, member in enumerate(members):
            member.comment = _COMMENT + compressed[number * size : (number + 1) * size]
        text = dataclasses.replace(metadata, class_names=()).to_json().encode()
    archive.comment = _COMMENT + text


def _is_finite(array: np.ndarray) -> bool:
    if array.dtype.kind not in "fc" and array.dtype != ml_dtypes.bfloat16:
        return True
    with np.errstate(all="ignore"):
        # The sum is much faster, and finite unless a value is not or the sum overflows.
        return bool(np.isfinite(array.sum()) or np.isfinite(array).all())


def _refuse_traps(path: Path, members: list[zipfile.ZipInfo], size: int) -> None:
    for member in members:
        parts = member.filename.split("/")
        if "\\" in member.filename or ":" in parts[0] or {"", ".", ".."} & set(parts):
            raise UserError(
                f"the checkpoint {path} has a path as an array's name, {member.filename!r}: do not trust it"
            )
    if sum(member.file_size for member in members) > _MAX_EXPANSION * size:
        raise UserError(
            f"the checkpoint {path} would unpack to more than {_MAX_EXPANSION} times its size: do not trust it"
        )


def _read_array(file: io.BufferedReader, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        with archive.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    # Read straight into the array's memory: numpy's copying in pieces would take most of the time to load a model.
    file.seek(member.header_offset)
    name_size, extra_size = struct.unpack("<26xHH", file.read(30))
    start = file.seek(member.header_offset + 30 + name_size + extra_size)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{member.filename} has version {version} of numpy's format")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded")
    header_size = file.tell() - start
    count = math.prod(shape)
    if header_size + count * dtype.itemsize != member.file_size:
        raise zipfile.BadZipFile(f"{member.filename} does not have the size that its shape needs")
    flat = np.empty(count, dtype)
    content = flat.view(np.uint8).data
    complete = count == 0 or file.readinto(content) == len(content)
    file.seek(start)
    if not complete or zlib.crc32(content, zlib.crc32(file.read(header_size))) != member.CRC:
        raise zipfile.BadZipFile(f"{member.filename} differs from its checksum")
    return flat.reshape(shape[::-1]).T if fortran_order else flat.reshape(shape)


def _recover_bfloat16(array: np.ndarray) -> np.ndarray:
    # numpy stores bfloat16 as a two-byte void type.
    return array.view(ml_dtypes.bfloat16) if array.dtype == np.dtype("V2") else array
