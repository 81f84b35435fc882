"""Flags of `ppvit audit`, and what they say as one object."""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from ppvit_jax.audit.attack import Counts
from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.data.images import Resize
from ppvit_jax.encryption import METHODS
from ppvit_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Sources:
    """Where the inputs of attacks come from; None for flags that are not given.

    counts: numbers of images to attack.
    base: a plain checkpoint.
    models: adapted checkpoints.
    plain, encrypted, reference: folders of images; `photographs` stands for scikit-learn's.
    encryption, block_size: how the encrypted images are encrypted, unless their manifest says it.
    resize: how plain images reach the size of the encrypted ones.
    key, passphrase_file: the key, for the scoring alone.
    seed: of the choice of images.
    """

    counts: Counts
    base: str | None = None
    models: tuple[str, ...] = ()
    plain: str | None = None
    encrypted: str | None = None
    reference: str | None = None
    encryption: str | None = None
    block_size: int = 16
    resize: Resize = "centre_crop"
    key: str | None = None
    passphrase_file: str | None = None
    seed: int = 0

    @property
    def model(self) -> str | None:
        """The first model."""
        return self.models[0] if self.models else None

    @property
    def second_model(self) -> str | None:
        """The second model."""
        return self.models[1] if len(self.models) > 1 else None


def add_sources(parser: argparse.ArgumentParser, required: Sequence[str], optional: Sequence[str]) -> None:
    """Adds the flags of these inputs, in this order, and those that go with them.

    Args:
      parser: a subcommand's.
      required: names as in `ppvit_jax.audit.attack.Need`.
      optional: such names, and those of `ppvit_jax.audit.attack.Option`.
    """
    names = tuple(dict.fromkeys((*required, *optional)))
    for name in names:
        needed = name in required
        match name:
            case "base":
                parser.add_argument("--base", required=needed, metavar="CKPT", help="a plain one, or `embedded`")
            case "model" if "second_model" not in names:
                parser.add_argument("--model", required=needed, metavar="CKPT", help="adapted, fine-tuned or not")
            case "model":
                parser.add_argument(
                    "--model",
                    required=needed,
                    action="append",
                    metavar="CKPT",
                    help="adapted, fine-tuned or not; given twice, to compare models of two keys",
                )
            case "plain":
                parser.add_argument("--plain", required=needed, metavar="DIR", help="the plain images")
            case "encrypted":
                parser.add_argument("--encrypted", required=needed, metavar="DIR", help="images of one key")
                shared.add_encryption(parser, default=None)
            case "reference":
                parser.add_argument(
                    "--reference", metavar="DIR", help="plain images of the same kind as those attacked"
                )
            case "pairs":
                parser.add_argument("--pairs", type=_numbers, default=Counts.pairs, metavar="N,N", help="to learn from")
            case "images":
                parser.add_argument("--images", type=_numbers, default=Counts.images, metavar="N,N", help="to attack")
            case "candidates":
                parser.add_argument(
                    "--candidates", type=int, default=Counts.candidates, metavar="N", help="(default: %(default)s)"
                )
            case "key":
                parser.add_argument("--key", metavar="KEY", help="for the scoring alone: no attack sees it")
                parser.add_argument("--passphrase-file", metavar="F", help="file whose first line opens it")
    if {"plain", "encrypted"} & set(names):
        parser.add_argument(
            "--patch-size",
            type=int,
            dest="block_size",
            default=Sources.block_size,
            metavar="PATCH_SIZE",
            help="without a manifest (default: %(default)s)",
        )
        parser.add_argument(
            "--resize",
            choices=("centre_crop", "squash"),
            default=Sources.resize,
            help="of plain images (%(default)s)",
        )


def add_comparison(parser: argparse.ArgumentParser, *, keys: int) -> None:
    """Adds --methods and --keys, for methods by attacks."""
    parser.add_argument(
        "--methods", nargs="*", default=list(METHODS), metavar="NAME", help="to compare (default: all; none: nothing)"
    )
    parser.add_argument(
        "--keys", type=int, default=keys, metavar="N", help="new keys for that, one a repetition (%(default)s)"
    )


def read_sources(arguments: argparse.Namespace) -> Sources:
    """Returns what the flags of `add_sources` say; those that a subcommand lacks keep their defaults.

    Raises:
      UserError: a number that is too small.
    """
    options = vars(arguments)
    for name, least in (("seed", 0), ("candidates", 1), ("image_size", 1)):
        if options.get(name, least) < least:
            raise UserError(f"--{name.replace('_', '-')} is {options[name]}: give {least} or more")
    models = options.get("model") or ()
    models = (models,) if isinstance(models, str) else tuple(models)
    values: dict[str, Any] = {name: options[name] for name in _fields(Sources) if name in options}
    counts = Counts(**{name: options[name] for name in _fields(Counts) if name in options})
    return Sources(**values | {"models": models, "counts": counts})


def _fields(kind: type[Counts] | type[Sources]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _numbers(text: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give numbers from 1 on, such as 1,5,20")
    return numbers
