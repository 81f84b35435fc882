"""Arguments that several commands of the owner share."""

import argparse
import sys
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
    if name == "none":
        raise UserError(f"--encryption none leaves images plain: choose {ENCRYPTED}")
    return create(name, block_size)


def add_encryption(parser: argparse.ArgumentParser, default: str | None = "bs+ps") -> None:
    """Adds --encryption; the default None is for input that may say it itself."""
    said = "(default: %(default)s)" if default else "(default: what the input says of itself, else bs+ps)"
    parser.add_argument("--encryption", default=default, metavar="NAME", help=f"{ENCRYPTED} {said}")


def add_base_is_public(parser: argparse.ArgumentParser) -> None:
    """Adds --base-is-public and --no-base-is-public; None if neither is given."""
    parser.add_argument(
        "--base-is-public",
        action=argparse.BooleanOptionalAction,
        help="whether others can have the checkpoint that the model is adapted from (without: assumed, and said)",
    )


def warn_of_public_base(arguments: argparse.Namespace, known: str | None = None) -> None:
    """Says on standard error what a public base gives away, unless --no-base-is-public.

    Args:
      arguments: with --base-is-public.
      known: the name of the public checkpoint that the base is known to be, which no argument overrides.
    """
    if known:
        base = f"the base checkpoint is public ({known})"
    elif arguments.base_is_public:
        base = "the base checkpoint is public"
    elif arguments.base_is_public is None:
        base = "the base checkpoint is assumed to be public (else --no-base-is-public)"
    else:
        return
    print(
        f"warning: {base}: whoever has it and the adapted model reads the key's permutations off the two in under a "
        "second: see docs/threat_model.md",
        file=sys.stderr,
    )
