"""The command `ppvit keygen`: makes a new secret key."""

import argparse

from ppvit_jax import keys
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.commands.shared.output import new_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments and description."""
    describe(
        parser,
        "Makes a secret key of 32 random bytes, writes it to a file that only you can read, and prints its "
        "fingerprint. The owner of the images runs it, and never gives the file to the cloud.",
        "ppvit keygen --output secret.key",
        "ppvit keygen --output secret.key --passphrase-file passphrase.txt",
    )
    parser.add_argument("--output", required=True, metavar="KEY", help="key file to write, such as secret.key")
    parser.add_argument(
        "--passphrase-file",
        metavar="FILE",
        help="file whose first line is a passphrase to seal the key with (default: leave the key unsealed)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes a key of 32 random bytes and prints its fingerprint.

    Raises:
      UserError: the file exists or cannot be written, or the passphrase file holds no passphrase.
    """
    passphrase = keys.read_passphrase(arguments.passphrase_file) if arguments.passphrase_file else None
    path = new_path(arguments.output, "the key")
    key = keys.generate()
    keys.save(key, path, passphrase)
    print(
        f"{path}: new key of fingerprint {key.fingerprint}; keep it and a copy of it where the cloud cannot read them"
    )
