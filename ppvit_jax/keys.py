"""Secret keys and the randomness derived from them (key format version 1).

The format, to the bit, is in docs/key_format.md, with test vectors. Master key: 32 random bytes. Every
permutation has a subkey of its own by HKDF-SHA256 (RFC 5869), expanded by SHAKE256 (FIPS 202) into the words
of a Fisher-Yates shuffle without modulo bias.
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


@dataclasses.dataclass(frozen=True)
class SecretKey:
    """A master key of 32 bytes. Its repr shows the fingerprint, never the key."""

    master: bytes = dataclasses.field(repr=False)

    def __post_init__(self):
        if len(self.master) != 32:
            raise UserError("a master key has 32 bytes: the key is damaged")

    def __repr__(self) -> str:
        return f"SecretKey(fingerprint={self.fingerprint})"

    @functools.cached_property
    def fingerprint(self) -> str:
        """Public name of the key: 32 hexadecimal digits, which identify it and do not reveal it."""
        return self._subkey(b"fingerprint", 16).hex()

    def permutation(self, label: str, length: int) -> np.ndarray:
        """Derives the permutation of `length` places: int32 [length], out[i] = in[permutation[i]].

        The label names its use, such as "block" (places are blocks, row-major) or "pixel" (places are the values of a
        block in (row, column, channel) order); see docs/key_format.md.
        """
        return _fisher_yates(self._subkey(f"{label}/{length}".encode("ascii"), 32), length)

    def words(self, label: str, count: int) -> np.ndarray:
        """Derives the first `count` words of the label's stream: uint32 [count]."""
        return _words(self._subkey(f"{label}/{count}".encode("ascii"), 32), count)

    def bits(self, label: str, count: int) -> np.ndarray:
        """Derives random bits: bool [count], from the words' bytes, the lowest bit of a byte first."""
        words = self.words(label, count)
        return np.unpackbits(words.astype("<u4").view(np.uint8), count=count, bitorder="little").astype(bool)

    def integers(self, label: str, count: int, bound: int) -> np.ndarray:
        """Derives integers from 0 to bound - 1 without bias: int32 [count], passing over words that are too large."""
        subkey = self._subkey(f"{label}/{count}".encode("ascii"), 32)
        length = count + 64
        while True:
            words = _words(subkey, length)
            kept = words[words < 2**32 - 2**32 % bound]
            if len(kept) >= count:
                return (kept[:count] % np.uint32(bound)).astype(np.int32)
            length *= 2

    def permutations(self, encryption: str, *, image_size: int, patch_size: int) -> Any:
        """Derives the permutations that a model absorbs: `ppvit_jax.encryption.derive_permutations` for this key.

        A shorthand for interactive use. This module imports no encryption, so it looks the function up when called.

        Args:
          encryption: "none", or a method with its options such as "bs+ps".
          image_size: side of an image in pixels.
          patch_size: the model's patch size in pixels, which is the encryption's block size.

        Returns:
          `ppvit_jax.encryption.Permutations`.

        Raises:
          UserError: an unknown encryption, one that no model can absorb, or an image size that is not a multiple of
            the patch size.
        """
        derive = importlib.import_module("ppvit_jax.encryption").derive_permutations
        return derive(self, encryption, image_size=image_size, block_size=patch_size)

    def authenticate(self, content: bytes) -> str:
        """Returns the HMAC-SHA256 of `content` under a subkey, in hexadecimal; only the key can make it."""
        return hmac.new(self._subkey(b"authentication", 32), content, hashlib.sha256).hexdigest()

    def _subkey(self, label: bytes, length: int) -> bytes:
        return HKDF(SHA256(), length=length, salt=b"", info=b"ppvit/v1/" + label).derive(self.master)


def generate() -> SecretKey:
    """Makes a new key from the operating system's randomness."""
    return SecretKey(secrets.token_bytes(32))


def save(key: SecretKey, path: str | os.PathLike, passphrase: bytes | None = None) -> None:
    """Writes a key file: JSON, mode 0600, never over an existing file.

    With a passphrase the master key is sealed by ChaCha20-Poly1305 under scrypt (n=2^15, r=8, p=1).

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
        # Exclusive creation with the final mode, so that others can read it at no moment.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UserError(f"{path} exists: a key file is never overwritten, choose another name") from None
    except OSError as error:
        raise UserError(f"cannot create the key file {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
        file.write("\n")


def load(path: str | os.PathLike, passphrase: bytes | None = None) -> SecretKey:
    """Reads a key file.

    Raises:
      UserError: the file is missing, readable by others, damaged, of another version, or the passphrase is
        missing or wrong. No message contains anything of the key.
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
    """Reads the first line of a file, without its end.

    Raises:
      UserError: the file cannot be read, or its first line is empty.
    """
    try:
        line = Path(path).expanduser().read_bytes().splitlines()[0]
    except (OSError, IndexError):
        line = b""
    if not line:
        raise UserError(f"cannot read a passphrase from {path}: its first line should be the passphrase")
    return line


def describe(path: str | os.PathLike) -> dict[str, str]:
    """Reads what a key file shows without its passphrase: version, fingerprint and protection, never the key.

    Raises:
      UserError: as `load`, except for the passphrase.
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
        mode = path.stat().st_mode
        if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
            raise UserError(f"the key file {path} can be read by others: run chmod 600 {path}")
        content = json.loads(path.read_text())
        version = content["version"]
        if content["format"] != "ppvit-key":
            raise KeyError
    except OSError as error:
        raise UserError(f"cannot read the key file {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not a key file of this program, or it is damaged") from None
    if version != VERSION:
        raise UserError(f"{path} is a key file of version {version}, and this program reads version {VERSION}")
    return content


def _cipher(passphrase: bytes, salt: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(Scrypt(salt=salt, length=32, **_SCRYPT).derive(passphrase))


def _words(subkey: bytes, count: int) -> np.ndarray:
    return np.frombuffer(hashlib.shake_256(subkey).digest(4 * count), "<u4").astype(np.uint32)


def _fisher_yates(subkey: bytes, length: int) -> np.ndarray:
    # SHAKE256 has no incremental output in hashlib: take a longer prefix in the rare case of many rejections.
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
