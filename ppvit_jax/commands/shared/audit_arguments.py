"""Flags of `ppvit audit`, and their values as one object."""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from ppvit_jax.audit.attack import Counts
from ppvit_jax.command_line import Number
from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.commands.shared.encryption_choices import image_encryptions
from ppvit_jax.data.images import RESIZES, Resize
from ppvit_jax.encryption import METHODS
from ppvit_jax.errors import COUNT, SIDE


def _numbers(text: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give whole numbers of at least 1, such as 1,5,20")
    return numbers


_MODEL = "checkpoint of the adapted model, fine-tuned or not"
_FLAGS: dict[str, dict[str, Any]] = {
    "base": {
        "metavar": "CKPT",
        "help": "checkpoint that the model was adapted from; embedded names the small one in the package",
    },
    "model": {"metavar": "CKPT", "help": _MODEL},
    "plain": {
        "metavar": "DIR",
        "help": "folder of plain images; photographs stands for crops of two images in scikit-learn",
    },
    "encrypted": {"metavar": "DIR", "help": "folder of images that are encrypted with one key"},
    "reference": {"metavar": "DIR", "help": "folder of other plain images that resemble those attacked"},
    "pairs": {
        "type": _numbers,
        "default": ",".join(map(str, Counts.pairs)),
        "metavar": "N,N",
        "help": "numbers of pairs of an image and its encryption to learn from, separated by commas "
        "(default: %(default)s)",
    },
    "images": {
        "type": _numbers,
        "default": ",".join(map(str, Counts.images)),
        "metavar": "N,N",
        "help": "numbers of encrypted images to attack, separated by commas (default: %(default)s)",
    },
    "candidates": {
        "action": Number,
        "range": COUNT,
        "default": Counts.candidates,
        "metavar": "N",
        "help": "number of plain images among which to search for those encrypted (default: %(default)s)",
    },
    "key": {
        "metavar": "KEY",
        "help": "key file of the model or the images, to prepare and score the attacks; no attack sees it",
    },
}
_CHANGES: dict[str, dict[str, Any]] = {
    "plain": {"help": "folder of the plain images that were encrypted"},
    "model": {"action": "append", "help": f"{_MODEL}; give it twice to compare the models of two keys"},
}


@dataclasses.dataclass(frozen=True)
class Sources:
    """Sources of the inputs of attacks; None for flags that are absent.

    Attributes:
      counts: numbers of images to attack.
      base: a plain checkpoint.
      models: adapted checkpoints.
      plain, encrypted, reference: folders of images; `photographs` stands for those of scikit-learn.
      encryption, block_size: those of the encrypted images, for a folder without a manifest.
      resize: the way in which plain images get the size of the encrypted ones.
      key, passphrase_file: the key, for the scoring alone.
      seed: seed of the random choice of images.
    """

    counts: Counts
    base: str | None = None
    models: tuple[str, ...] = ()
    plain: str | None = None
    encrypted: str | None = None
    reference: str | None = None
    encryption: str | None = None
    block_size: int = 16
    resize: Resize = RESIZES[0]
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
      parser: the parser of a subcommand.
      required: names as in `ppvit_jax.audit.attack.Need`.
      optional: such names, and those of `ppvit_jax.audit.attack.Option`.
    """
    # The flag of a second model is that of the first.
    names = [name for name in dict.fromkeys((*required, *optional)) if name != "second_model"]
    changed = {"plain": "encrypted", "model": "second_model"}
    for name in names:
        changes = _CHANGES[name] if changed.get(name) in (*required, *optional) else {}
        parser.add_argument(f"--{name}", required=name in required, **_FLAGS[name] | changes)
        if name == "encrypted":
            note = "default: the manifest's; needed if the folder has no manifest.json"
            shared.add_encryption(parser, image_encryptions(), "encryption of these images", note)
        elif name == "key":
            shared.add_passphrase_file(parser)
    if {"plain", "encrypted"} & set(names):
        parser.add_argument(
            "--block-size",
            "--patch-size",
            action=Number,
            range=SIDE,
            dest="block_size",
            default=Sources.block_size,
            metavar="PIXELS",
            help="side of a block in pixels, for images without a manifest.json (default: %(default)s)",
        )
        shared.add_resize(parser)


def add_comparison(parser: argparse.ArgumentParser, *, keys: int) -> None:
    """Adds --methods and --keys, for the table of encryptions by attacks."""
    parser.add_argument(
        "--methods",
        nargs="*",
        default=list(METHODS),
        metavar="NAME",
        help="encryptions to compare, with options as NAME:OPTION=VALUE; without a NAME, the comparison is left out "
        f"(default: {' '.join(METHODS)})",
    )
    parser.add_argument(
        "--keys",
        action=Number,
        range=COUNT,
        default=keys,
        metavar="N",
        help="number of new keys to try each encryption with (default: %(default)s)",
    )


def read_sources(arguments: argparse.Namespace) -> Sources:
    """Returns the values of the flags of `add_sources`; flags that a subcommand lacks keep their defaults."""
    options = vars(arguments)
    models = options.get("model") or ()
    models = (models,) if isinstance(models, str) else tuple(models)
    values: dict[str, Any] = {name: options[name] for name in _fields(Sources) if name in options}
    counts = Counts(**{name: options[name] for name in _fields(Counts) if name in options})
    return Sources(**values | {"models": models, "counts": counts})


def _fields(kind: type[Counts] | type[Sources]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def add_image_size(command: argparse.ArgumentParser) -> None:
    """Adds --image-size, of the images that a comparison encrypts."""
    command.add_argument(
        "--image-size",
        action=Number,
        range=SIDE,
        default=shared.DEFAULT_IMAGE_SIZE,
        metavar="PIXELS",
        help="side of the images in pixels (default: %(default)s)",
    )
