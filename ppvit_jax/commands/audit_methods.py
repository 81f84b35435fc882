"""The command `ppvit audit methods`: what each attack makes of each encryption, with new keys."""

import argparse
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from ppvit_jax.adaptation import restore
from ppvit_jax.audit import matrix, report
from ppvit_jax.audit.finding import KNOWLEDGE, Finding
from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.commands.shared import audit_inputs
from ppvit_jax.data.progress import Progress
from ppvit_jax.encryption import METHODS, usual_block_size
from ppvit_jax.errors import UserError

_OF_MODELS = {"weights", "position-embedding", "link"}
_REFERENCES = 200


@dataclasses.dataclass(frozen=True)
class Measured:
    """What every attack made of every method: see `report.write_matrix` for the fields."""

    specs: list[str]
    rows: list[dict[str, Any]]
    refused: dict[tuple[str, str], str]
    pictures: list[tuple[str, Finding]]
    what: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    audit_inputs.add_arguments(
        parser, ("plain?", "reference", "pairs", "images", "candidates", "base?", "model?", "key")
    )
    add_comparison(parser, keys=5)
    parser.add_argument("--attacks", default="", metavar="NAMES", help=f"a part of {','.join(KNOWLEDGE)}")
    parser.add_argument("--image-size", type=int, default=224, help="pixels (default: %(default)s)")
    parser.add_argument(
        "--noise", type=float, default=0.0, metavar="LEVELS", help="added before encrypting, as a mitigation (0)"
    )


def add_comparison(parser: argparse.ArgumentParser, *, keys: int) -> None:
    """Adds what `ppvit audit all` has as well: --methods and --keys."""
    parser.add_argument(
        "--methods", nargs="*", default=list(METHODS), metavar="NAME", help="to compare (default: all; none: nothing)"
    )
    parser.add_argument(
        "--keys", type=int, default=keys, metavar="N", help="new keys for that, one a repetition (%(default)s)"
    )


def run(arguments: argparse.Namespace, output: Path) -> list[str]:
    """Measures methods by attacks with new keys.

    Returns:
      The names of the attacks that succeeded on any.

    Raises:
      UserError: anything that the user can put right.
    """
    attacks = arguments.attacks.split(",") if arguments.attacks else list(KNOWLEDGE)
    if unknown := set(attacks) - set(KNOWLEDGE):
        raise UserError(f"--attacks has no {min(unknown)!r}: choose among {', '.join(KNOWLEDGE)}")
    if not arguments.plain and set(attacks) - _OF_MODELS:
        raise UserError("attacks on images need some: give --plain, a folder or `photographs`, or other --attacks")
    found = measure(arguments, attacks, arguments.image_size, arguments.noise)
    report.write_matrix(found.specs, found.rows, found.refused, found.pictures, found.what, output)
    print((output / "matrix.md").read_text())
    return list(dict.fromkeys(row["attack"] for row in found.rows if row["succeeded"]))


def measure(arguments: argparse.Namespace, attacks: list[str], size: int, noise: float = 0.0) -> Measured:
    """Tries the attacks on every method of --methods with --keys new keys.

    Args:
      arguments: the command's; without --plain, only attacks on models are tried.
      attacks: their names.
      size: of the images in pixels.
      noise: standard deviation in grey levels, added before encrypting.

    Raises:
      UserError: anything that the user can put right.
    """
    if arguments.keys < 1 or noise < 0:
        raise UserError("--keys needs at least 1, and --noise 0 or more")
    methods = [shared.open_encryption(spec, usual_block_size(spec, arguments.patch_size)) for spec in arguments.methods]
    reference = None
    plain = np.empty((0, size, size, 3), np.uint8)
    if set(attacks) - _OF_MODELS and arguments.plain:
        needed = max([2 * max(arguments.pairs), *arguments.images, arguments.candidates])
        plain = audit_inputs.open_images(arguments.plain, arguments, size, needed, arguments.seed)
        if arguments.reference:
            reference = audit_inputs.open_images(arguments.reference, arguments, size, _REFERENCES, arguments.seed + 1)
    models = _models(arguments) if _OF_MODELS & set(attacks) and arguments.base else None
    attacks = attacks if models else [name for name in attacks if name not in _OF_MODELS]
    material = matrix.Material(plain, reference, arguments.pairs, arguments.images, noise, models)
    rows: list[dict[str, Any]] = []
    refused: dict[tuple[str, str], str] = {}
    pictures: list[tuple[str, Finding]] = []
    progress = Progress("methods by attacks", len(methods) * arguments.keys * len(attacks), "attacks")
    for place, method in enumerate(methods):
        for number in range(arguments.keys):
            before = (place * arguments.keys + number) * len(attacks)
            tried = itertools.count(before + 1)
            findings, reasons = matrix.attack(
                method, material, arguments.seed, number, attacks, lambda _, tried=tried: progress.update(next(tried))
            )
            rows += matrix.records(method.spec, number, findings)
            refused |= {(method.spec, name): reason for name, reason in reasons.items()}
            if number == 0:
                pictures += [(method.spec, finding) for finding in findings if finding.pictures]
            progress.update(before + len(attacks))
    progress.close()
    what = f"{arguments.keys} keys, seed {arguments.seed}"
    if len(plain):
        what += (
            f"; {len(plain)} images of {_called(arguments.plain)} at {size}x{size}, blocks of {arguments.patch_size}, "
            "of LE and ELE 4"
        )
    if noise:
        what += f"; the owner adds noise of standard deviation {noise:g} before encrypting"
    if reference is not None:
        what += f"; {len(reference)} reference images of {_called(arguments.reference)}"
    if models:
        what += f"; base {Path(arguments.base).name}, model {Path(arguments.model or arguments.base).name}"
        what += f" of {models.image_size}x{models.image_size} with patches of {models.block_size}"
    return Measured([method.spec for method in methods], rows, refused, pictures, what)


def _called(folder: str) -> str:
    path = Path(folder).expanduser()
    return path.parent.name if (path / "dataset_info.json").is_file() else path.name


def _models(arguments: argparse.Namespace) -> matrix.Models:
    """The base and the tuned model, which is made plain again by its key to be adapted with new ones."""
    tuned, metadata, shape = audit_inputs.open_model(arguments.model or arguments.base)
    permutations = audit_inputs.model_truth(arguments, metadata, shape)
    if metadata.encryption != "none":
        if permutations is None:
            raise UserError(f"{arguments.model} is adapted to a key: give its --key, to adapt it to new ones")
        tuned = restore(tuned, permutations)
    base = audit_inputs.open_model(arguments.base, shape.image_size)[0]
    return matrix.Models(base, tuned, shape.patch_size, shape.image_size)
