"""Arguments that several commands of the owner share, and their defaults."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ppvit_jax.data.images import RESIZE_NAMES, RESIZES, Resize
from ppvit_jax.encryption import METHODS, Encryption, parse
from ppvit_jax.errors import UserError

if TYPE_CHECKING:
    from ppvit_jax import keys

DEFAULT_ENCRYPTION = "bs+ps"
DEFAULT_IMAGE_SIZE = 224
DEFAULT_BLOCK_SIZE = 16
ENCRYPTED = f"one of {', '.join(METHODS)}, with options such as etc:shared=True"


def add_key(parser: argparse.ArgumentParser, prefix: str = "", title: str = "the key") -> None:
    """Adds --key and --passphrase-file, or with the prefix "new-" --new-key and --new-passphrase-file."""
    parser.add_argument(f"--{prefix}key", required=True, metavar="KEY", help=f"file of {title}")
    parser.add_argument(
        f"--{prefix}passphrase-file", metavar="F", help="file whose first line opens it, for a sealed key"
    )


def open_key(path: str, passphrase_file: str | None) -> "keys.SecretKey":
    """Opens the key of a file.

    Raises:
      UserError: a key file or passphrase that cannot be used.
    """
    # The cloud's commands share this module, and never load that of keys.
    from ppvit_jax import keys

    return keys.load(Path(path).expanduser(), keys.read_passphrase(passphrase_file) if passphrase_file else None)


def open_encryption(name: str, block_size: int) -> Encryption:
    """Returns the encryption of --encryption.

    Raises:
      UserError: an unknown name or option, or "none".
    """
    if name == "none":
        raise UserError(f"--encryption none leaves images plain: choose {ENCRYPTED}")
    return parse(name, block_size)


def add_encryption(parser: argparse.ArgumentParser, default: str | None = DEFAULT_ENCRYPTION) -> None:
    """Adds --encryption; the default None is for input that may say it itself."""
    text = _describe_default(DEFAULT_ENCRYPTION, default is not None)
    parser.add_argument("--encryption", default=default, metavar="NAME", help=f"{ENCRYPTED} {text}")


def add_sizes(parser: argparse.ArgumentParser, *, defaults: bool = True) -> None:
    """Adds --image-size and --block-size, also spelled --patch-size; without defaults for input that may say them."""
    sizes = (
        (("--image-size",), "side of an image in pixels", DEFAULT_IMAGE_SIZE),
        (("--block-size", "--patch-size"), "side of a block in pixels, the model's patch size", DEFAULT_BLOCK_SIZE),
    )
    for names, title, default in sizes:
        text = f"{title} {_describe_default(default, defaults)}"
        parser.add_argument(*names, type=int, default=default if defaults else None, help=text)


def add_resize(parser: argparse.ArgumentParser) -> None:
    """Adds --resize, which takes "center_crop" in either spelling; `arguments.resize` is the published value."""
    parser.add_argument(
        "--resize",
        type=_parse_resize,
        default=RESIZES[0],
        metavar=f"{{{','.join(RESIZE_NAMES)}}}",
        help=f"how plain images become square (default: {next(iter(RESIZE_NAMES))})",
    )


def add_base_is_public(parser: argparse.ArgumentParser) -> None:
    """Adds --base-is-public and --no-base-is-public; None if neither is given."""
    parser.add_argument(
        "--base-is-public",
        action=argparse.BooleanOptionalAction,
        help="others can have the checkpoint that the model is adapted from (default: assume so, and print a warning)",
    )


def warn_of_public_base(arguments: argparse.Namespace, checkpoint: str | None = None) -> None:
    """Warns on standard error that a public base gives the key away, unless --no-base-is-public.

    Args:
      arguments: with --base-is-public.
      checkpoint: the name of the public checkpoint that the base was recognized as, which no argument overrides.
    """
    if checkpoint:
        base = f"the base checkpoint is public ({checkpoint})"
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


def _parse_resize(text: str) -> Resize:
    for value in RESIZES:
        if RESIZE_NAMES.get(text, text) == value:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is unknown: choose {' or '.join(RESIZE_NAMES)}")


def _describe_default(default: object, is_used: bool) -> str:
    return f"(default: {default})" if is_used else f"(default: what the input says of itself, else {default})"
