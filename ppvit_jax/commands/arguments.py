"""Arguments that several commands of the owner share."""

import argparse
from pathlib import Path

from ppvit_jax import keys
from ppvit_jax.encryption import ENCRYPTIONS

ENCRYPTED = tuple(name for name in ENCRYPTIONS if name != "none")


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


def add_encryption(parser: argparse.ArgumentParser, default: str | None = "bs+ps") -> None:
    """Adds --encryption; the default None is for input that may say it itself."""
    said = "(default: %(default)s)" if default else "(default: what the input says of itself, else bs+ps)"
    parser.add_argument("--encryption", choices=ENCRYPTED, default=default, help=said)
