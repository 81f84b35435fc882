"""Arguments that several commands share, and their defaults."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ppvit_jax.command_line import Number
from ppvit_jax.data.images import DEFAULT_MAX_PIXELS, MAX_PIXELS_LIMIT, RESIZE_NAMES, RESIZES, Resize
from ppvit_jax.encryption import METHODS, Encryption, parse
from ppvit_jax.errors import SIDE, Range, UserError, print_warning
from ppvit_jax.files import local_path

if TYPE_CHECKING:
    from ppvit_jax import keys

DEFAULT_ENCRYPTION = "bs+ps"
DEFAULT_IMAGE_SIZE = 224
DEFAULT_BLOCK_SIZE = 16


def add_key(parser: argparse.ArgumentParser, prefix: str = "", text: str = "key file, from ppvit keygen") -> None:
    """Adds --key and --passphrase-file, or with the prefix "new-" --new-key and --new-passphrase-file."""
    parser.add_argument(f"--{prefix}key", required=True, metavar="KEY", help=text)
    add_passphrase_file(parser, prefix)


def add_passphrase_file(parser: argparse.ArgumentParser, prefix: str = "") -> None:
    """Adds --passphrase-file, for the key of --key."""
    parser.add_argument(
        f"--{prefix}passphrase-file",
        metavar="FILE",
        help=f"file whose first line is the passphrase of --{prefix}key; needed if that key is sealed",
    )


def open_key(path: str, passphrase_file: str | None) -> "keys.SecretKey":
    """Opens the key of a file.

    Raises:
      UserError: the key file or the passphrase cannot be used.
    """
    # The cloud's commands share this module, and must never load the module of keys.
    from ppvit_jax import keys

    return keys.load(local_path(path), keys.read_passphrase(passphrase_file) if passphrase_file else None)


def open_encryption(name: str, block_size: int) -> Encryption:
    """Returns the encryption of --encryption.

    Raises:
      UserError: the name or an option is unknown, or the name is "none".
    """
    if name == "none":
        raise UserError(f"--encryption none leaves images plain: choose one of {', '.join(METHODS)}")
    return parse(name, block_size)


def add_encryption(
    parser: argparse.ArgumentParser, specs: Sequence[str], text: str, note: str, default: str | None = None
) -> None:
    """Adds --encryption.

    Args:
      parser: the parser of a command.
      specs: the encryptions that can work, as the help lists them.
      text: the beginning of the help, before the list.
      note: the end of the help, which says what happens by default.
      default: the default; None for input that may name its encryption itself.
    """
    choices = f"{', '.join(specs[:-1])} or {specs[-1]}"
    parser.add_argument(
        "--encryption",
        default=default,
        metavar="NAME",
        help=f"{text}: {choices}; options are written NAME:OPTION=VALUE ({note})",
    )


def add_sizes(parser: argparse.ArgumentParser, *, declared: bool = False) -> None:
    """Adds --image-size and --block-size, also spelled --patch-size; the default is None.

    Args:
      parser: the parser of a command.
      declared: True for input whose manifest may declare its sizes, False for a command with --checkpoint.
    """
    sizes = (
        (("--image-size",), "side of the encrypted images in pixels", DEFAULT_IMAGE_SIZE),
        (("--block-size", "--patch-size"), "side of a block in pixels: the model's patch size", DEFAULT_BLOCK_SIZE),
    )
    for names, text, default in sizes:
        source = "manifest" if declared else "checkpoint"
        where = f"the {source}'s, or {default} without a {source}"
        parser.add_argument(
            *names,
            action=Number,
            range=SIDE,
            metavar="PIXELS",
            help=f"{text} (default: {where})",
        )


def add_resize(parser: argparse.ArgumentParser, *, recorded: bool = False) -> None:
    """Adds --resize, which takes "center_crop" in either spelling; `arguments.resize` is the published value.

    Args:
      parser: the parser of a command.
      recorded: True for a command with --checkpoint, whose record may have the value; the default is then None.
    """
    default = "the checkpoint's, or center_crop if it records none" if recorded else "center_crop"
    parser.add_argument(
        "--resize",
        type=_parse_resize,
        default=None if recorded else RESIZES[0],
        metavar=f"{{{','.join(RESIZE_NAMES)}}}",
        help="center_crop keeps the largest centered square of a plain image; squash scales its height and width "
        f"separately (default: {default})",
    )


def choose_resize(requested: Resize | None, recorded: str) -> Resize:
    """Returns the way of resizing of --resize, or else the one that a checkpoint records, or else the default."""
    by_text: dict[str, Resize] = {str(value): value for value in RESIZES}
    return requested or by_text.get(recorded, RESIZES[0])


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Adds --data-dir."""
    parser.add_argument(
        "--data-dir",
        default="",
        metavar="DIR",
        help="folder of the data sets for --tfds (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)",
    )


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Adds --max-pixels."""
    parser.add_argument(
        "--max-pixels",
        action=Number,
        range=Range(1, MAX_PIXELS_LIMIT, whole=True),
        default=DEFAULT_MAX_PIXELS,
        metavar="N",
        help="largest number of pixels, height times width, to accept in an image (default: %(default)s)",
    )


def add_base_is_public(parser: argparse.ArgumentParser) -> None:
    """Adds --base-is-public and --no-base-is-public; None if neither is given."""
    parser.add_argument(
        "--base-is-public",
        action=argparse.BooleanOptionalAction,
        help="others can, or cannot, obtain the base checkpoint (default: assume that they can, and print a warning)",
    )


def warn_of_public_base(arguments: argparse.Namespace, checkpoint: str | None = None) -> None:
    """Warns on standard error that a public base gives the key away, unless --no-base-is-public.

    Args:
      arguments: those with --base-is-public.
      checkpoint: the name of the public checkpoint that the base is recognized as; no argument overrides it.
    """
    if checkpoint:
        base = f"the base checkpoint is public ({checkpoint})"
    elif arguments.base_is_public:
        base = "the base checkpoint is public"
    elif arguments.base_is_public is None:
        base = "the base checkpoint is assumed to be public (if it is not, give --no-base-is-public)"
    else:
        return
    print_warning(
        f"{base}; anyone who has it and the adapted model can compute the key's permutations in under a "
        "second: see docs/threat_model.md"
    )


def _parse_resize(text: str) -> Resize:
    for value in RESIZES:
        if RESIZE_NAMES.get(text, text) == value:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is unknown: choose {' or '.join(RESIZE_NAMES)}")
