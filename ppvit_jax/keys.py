"""Secret keys and the randomness derived from them (key format version 1).

docs/key_format.md defines the format to the bit, with test vectors. A master key is 32 random bytes. HKDF-SHA256
(RFC 5869) derives a separate subkey for every permutation. SHAKE256 (FIPS 202) expands it into the words of a
Fisher-Yates shuffle without modulo bias.
"""

import dataclasses
import functools
import hashlib
import hmac
import importlib
import json
import os
import re
import secrets
import stat
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ppvit_jax.errors import UserError

VERSION = 1
_SCRYPT = {"n": 2**15, "r": 8, "p": 1}
_ASSOCIATED_DATA = b"ppvit/v1/key-file"
# A key file has a few hundred bytes.
_MAX_SIZE = 2**16
# Starts of files that are mistaken for a key file.
_OTHERS = (
    (b"PK", "a .npz checkpoint"),
    (b"-----BEGIN OPENSSH", "an SSH key"),
    (b"ssh-", "a public SSH key"),
    (b"-----BEGIN", "a PEM file of another program"),
    *((start, "an image") for start in (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")),
)


@dataclasses.dataclass(frozen=True)
class SecretKey:
    """Master key of 32 bytes. Its repr shows the fingerprint, never the key."""

    master: bytes = dataclasses.field(repr=False)

    def __post_init__(self):
        if len(self.master) != 32:
            raise UserError("the key is damaged: a master key has 32 bytes")

    def __repr__(self) -> str:
        return f"SecretKey(fingerprint={self.fingerprint})"

    @functools.cached_property
    def fingerprint(self) -> str:
        """Public name of the key: 32 hexadecimal digits that identify the key without revealing it."""
        return self._subkey(b"fingerprint", 16).hex()

    def permutation(self, label: str, length: int) -> np.ndarray:
        """Derives a permutation, to use as out[i] = in[permutation[i]].

        Args:
          label: the permutation's use, such as "block" (of blocks in row-major order) or "pixel" (of the values of a
            block in (row, column, channel) order); see docs/key_format.md.
          length: number of places.

        Returns:
          int32 [length].
        """
        return _fisher_yates(self._subkey(f"{label}/{length}".encode("ascii"), 32), length)

    def words(self, label: str, count: int) -> np.ndarray:
        """Derives `count` random words for a label: uint32 [count]."""
        return _words(self._subkey(f"{label}/{count}".encode("ascii"), 32), count)

    def bits(self, label: str, count: int) -> np.ndarray:
        """Derives random bits from the bytes of `words`, the lowest bit of a byte first: bool [count]."""
        words = self.words(label, count)
        return np.unpackbits(words.astype("<u4").view(np.uint8), count=count, bitorder="little").astype(bool)

    def integers(self, label: str, count: int, bound: int) -> np.ndarray:
        """Derives unbiased integers from 0 to bound - 1, by rejecting words that are too large: int32 [count]."""
        subkey = self._subkey(f"{label}/{count}".encode("ascii"), 32)
        length = count + 64
        while True:
            words = _words(subkey, length)
            kept = words[words < 2**32 - 2**32 % bound]
            if len(kept) >= count:
                return (kept[:count] % np.uint32(bound)).astype(np.int32)
            length *= 2

    def permutations(self, encryption: str, *, image_size: int, patch_size: int) -> Any:
        """Derives the permutations that a model absorbs; a shorthand of `ppvit_jax.encryption.derive_permutations`.

        It is meant for interactive use. This module imports no encryption, so the method imports the function when
        called.

        Args:
          encryption: "none", or a method with its options such as "bs+ps".
          image_size: side of an image in pixels.
          patch_size: the model's patch size in pixels, which is also the encryption's block size.

        Returns:
          `ppvit_jax.encryption.Permutations`.

        Raises:
          UserError: the encryption is unknown, no model can absorb it, or the image size is not a multiple of the patch
            size.
        """
        derive = importlib.import_module("ppvit_jax.encryption").derive_permutations
        return derive(self, encryption, image_size=image_size, block_size=patch_size)

    def authenticate(self, content: bytes) -> str:
        """Returns the HMAC-SHA256 of `content` under a subkey, in hexadecimal. Computing it needs the key."""
        return hmac.new(self._subkey(b"authentication", 32), content, hashlib.sha256).hexdigest()

    def _subkey(self, label: bytes, length: int) -> bytes:
        return HKDF(SHA256(), length=length, salt=b"", info=b"ppvit/v1/" + label).derive(self.master)


def generate() -> SecretKey:
    """Generates a new key from the operating system's randomness."""
    return SecretKey(secrets.token_bytes(32))


def save(key: SecretKey, path: str | os.PathLike, passphrase: bytes | None = None) -> None:
    """Writes a key file: JSON with mode 0600. It never overwrites a file.

    A passphrase seals the master key by ChaCha20-Poly1305 under scrypt (n=2^15, r=8, p=1).

    Args:
      key: the key to write.
      path: the new file.
      passphrase: seals the key; None writes it unsealed, protected by the file's permissions alone.

    Raises:
      UserError: the file exists or cannot be created.
    """
    content: dict = {"format": "ppvit-key", "version": VERSION, "fingerprint": key.fingerprint}
    if passphrase is None:
        content["master"] = b64encode(key.master).decode()
    else:
        salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
        sealed = _cipher(passphrase, salt).encrypt(nonce, key.master, _ASSOCIATED_DATA)
        content["sealed"] = {
            name: b64encode(value).decode() for name, value in {"salt": salt, "nonce": nonce, "master": sealed}.items()
        }
    try:
        # Created exclusively and with its final mode, so that others can never read it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UserError(f"{path} exists, and a key file is never overwritten: choose another name") from None
    except OSError as error:
        raise UserError(f"cannot create the key file {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
        file.write("\n")


def load(path: str | os.PathLike, passphrase: bytes | None = None) -> SecretKey:
    """Reads a key file.

    Args:
      path: the key file.
      passphrase: the passphrase of a sealed key.

    Raises:
      UserError: the file is missing, readable by others, damaged or of another version, or the passphrase is missing
        or wrong. No message contains any part of the key.
    """
    content = _read(Path(path))
    try:
        if "sealed" in content:
            if passphrase is None:
                raise UserError(f"the key file {path} is sealed: give its passphrase")
            sealed = {name: b64decode(value) for name, value in content["sealed"].items()}
            master = _cipher(passphrase, sealed["salt"]).decrypt(sealed["nonce"], sealed["master"], _ASSOCIATED_DATA)
        else:
            master = b64decode(content["master"], validate=True)
        key = SecretKey(master)
        if key.fingerprint != content["fingerprint"]:
            raise KeyError
    except InvalidTag:
        raise UserError(f"the passphrase does not open the key file {path}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"the key file {path} is damaged") from None
    return key


def read_passphrase(path: str | os.PathLike) -> bytes:
    """Reads a passphrase: the first line of a file, without the line break.

    Raises:
      UserError: the file cannot be read, or its first line is empty.
    """
    try:
        line = Path(path).expanduser().read_bytes().splitlines()[0]
    except (OSError, IndexError):
        line = b""
    if not line:
        raise UserError(f"cannot read a passphrase from {path}: write it on the first line of the file")
    return line


def describe(path: str | os.PathLike) -> dict[str, str]:
    """Describes a key file without its passphrase: version, fingerprint and protection, never the key.

    Raises:
      UserError: as `load`, except for errors of the passphrase.
    """
    content = _read(Path(path))
    fingerprint = content.get("fingerprint")
    if not isinstance(fingerprint, str) or not re.fullmatch("[0-9a-f]{32}", fingerprint):
        raise UserError(f"the key file {path} is damaged")
    sealed = "sealed" in content
    return {
        "key file": f"version {VERSION}",
        "key fingerprint": fingerprint,
        "protection": "sealed by a passphrase" if sealed else "file permissions alone",
    }


def _read(path: Path) -> dict:
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder and not a key file of ppvit: give the key file that keygen wrote")
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_MAX_SIZE)
    except OSError as error:
        raise UserError(f"cannot read the key file {path}: {error.strerror}") from None
    content = None
    try:
        content = json.loads(text)
        version = content["version"]
        if content["format"] != "ppvit-key":
            raise KeyError
    except (ValueError, KeyError, TypeError, RecursionError):
        title = next((f"{title} and" for start, title in _OTHERS if text.startswith(start)), "damaged, or")
        title = "JSON of another kind and" if content is not None else title if text else "empty and"
        raise UserError(f"{path} is {title} not a key file of ppvit: give the file that keygen wrote") from None
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise UserError(f"the key file {path} can be read by others: run chmod 600 {path}")
    if version != VERSION:
        raise UserError(
            f"{path} is a key file of version {version}, but this program reads version {VERSION}: update it"
        )
    return content


def _cipher(passphrase: bytes, salt: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(Scrypt(salt=salt, length=32, **_SCRYPT).derive(passphrase))


def _words(subkey: bytes, count: int) -> np.ndarray:
    return np.frombuffer(hashlib.shake_256(subkey).digest(4 * count), "<u4").astype(np.uint32)


def _fisher_yates(subkey: bytes, length: int) -> np.ndarray:
    # hashlib cannot extend the output of SHAKE256: compute a longer prefix in the rare case of many rejections.
    words = _words(subkey, length + 64).tolist()
    order = list(range(length))
    position = 0
    for i in range(length - 1, 0, -1):
        limit = 2**32 - 2**32 % (i + 1)
        while True:
            if position == len(words):
                words = _words(subkey, 2 * len(words)).tolist()
            word = words[position]
            position += 1
            if word < limit:
                break
        j = word % (i + 1)
        order[i], order[j] = order[j], order[i]
    return np.array(order, np.int32)
