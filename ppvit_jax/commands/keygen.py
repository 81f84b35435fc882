"""The command `ppvit keygen`: a new secret key."""

import argparse

from ppvit_jax import keys
from ppvit_jax.commands.shared.output import new_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--output", required=True, metavar="KEY", help="the key file to write, such as secret.key")
    parser.add_argument("--passphrase-file", metavar="F", help="seal the key by the first line of this file")


def run(arguments: argparse.Namespace) -> None:
    """Writes a key of 32 random bytes and prints its fingerprint.

    Raises:
      UserError: the file exists or cannot be written, or there is no passphrase in the file for it.
    """
    passphrase = keys.read_passphrase(arguments.passphrase_file) if arguments.passphrase_file else None
    path = new_path(arguments.output, "the key")
    key = keys.generate()
    keys.save(key, path, passphrase)
    print(f"{path}: new key of fingerprint {key.fingerprint}; keep it, and a copy of it, where the cloud cannot see it")
