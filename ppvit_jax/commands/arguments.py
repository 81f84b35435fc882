"""Arguments that several commands of the owner share."""

import argparse
from pathlib import Path

from ppvit_jax import keys
from ppvit_jax.encryption import METHODS, Encryption, create
from ppvit_jax.errors import UserError

ENCRYPTED = f"one of {', '.join(METHODS)}, with options such as etc:shared=True"


def add_key(parser: argparse.ArgumentParser, prefix: str = "", what: str = "the key") -> None:
    """Adds --key and --passphrase-file, or with the prefix "new-" --new-key and --new-passphrase-file."""
    parser.add_argument(f"--{prefix}key", required=True, metavar="KEY", help=f"file of {what}")
    parser.add_argument(
        f"--{prefix}passphrase-file", metavar="F", help="file whose first line opens it, for a sealed key"
    )


def open_key(path: str, passphrase_file: str | None) -> keys.SecretKey:
    """The key of a file.

    Raises:
      UserError: a key file or passphrase that cannot be used.
    """
    return keys.load(Path(path).expanduser(), keys.read_passphrase(passphrase_file) if passphrase_file else None)


def open_encryption(name: str, block_size: int) -> Encryption:
    """The encryption of --encryption.

    Raises:
      UserError: an unknown name or option, or "none".
    """
    method = create(name, block_size)
    if method is None:
        raise UserError(f"--encryption none leaves images plain: choose {ENCRYPTED}")
    return method


def add_encryption(parser: argparse.ArgumentParser, default: str | None = "bs+ps") -> None:
    """Adds --encryption; the default None is for input that may say it itself."""
    said = "(default: %(default)s)" if default else "(default: what the input says of itself, else bs+ps)"
    parser.add_argument("--encryption", default=default, metavar="NAME", help=f"{ENCRYPTED} {said}")
