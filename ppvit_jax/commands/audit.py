"""The command `ppvit audit`: attacks on what the cloud is given, and how much they recover."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from ppvit_jax.audit import attacks, matrix, methods, orthogonal_experiment, report
from ppvit_jax.audit.attack import SUCCESS, Attack, Need, Option
from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.commands.shared import audit_inputs
from ppvit_jax.commands.shared.audit_arguments import Sources, add_comparison, add_sources, read_sources
from ppvit_jax.commands.shared.output import results_folder
from ppvit_jax.encryption import usual_block_size
from ppvit_jax.errors import UserError, require
from ppvit_jax.files import write_text

EXIT_BROKEN = 3
# For methods by attacks in the report of all.
_COMPARED_SIZE, _COMPARED_IMAGES, _COMPARED_CANDIDATES = 224, 20, 100
# Inputs in the order in which a report names them.
_AUDITED = ("base", "model", "second_model", "encrypted", "plain")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a subcommand for each attack, and `all`, `methods` and `orthogonal`."""
    parser.description = f"Attacks, and how much they recover. {report.CAVEAT}"
    subcommands = parser.add_subparsers(dest="attack", required=True, metavar="ATTACK")

    def add(name: str, text: str, required: tuple[str, ...], optional: tuple[str, ...], *, output: bool = True):
        command = subcommands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}. {report.CAVEAT}")
        add_sources(command, required, optional)
        command.add_argument("--seed", type=int, default=0, help="of the choice of images (default: %(default)s)")
        command.add_argument("--output", required=output, metavar="DIR", help="folder for the report and pictures")
        command.add_argument(
            "--fail-on",
            default="",
            metavar="ATTACKS",
            help=f"exit with status {EXIT_BROKEN} if one of these, or `any`, succeeds: for use in a pipeline",
        )
        return command

    for attack in attacks.ATTACKS:
        add(attack.name, f"the attacker has {attack.attacker_has}", attack.needs, attack.uses, output=False)
    text = "every attack that the given files allow, and methods by attacks, in one report"
    add_comparison(add("all", text, (), (*get_args(Need), *get_args(Option))), keys=1)
    inputs = ("plain", "reference", "pairs", "images", "candidates", "base", "model", "key")
    command = add("methods", "methods by attacks: new keys, every attack", (), inputs)
    add_comparison(command, keys=5)
    command.add_argument("--attacks", default="", metavar="NAMES", help=f"a part of {','.join(_names())}")
    command.add_argument(
        "--image-size", type=int, default=shared.DEFAULT_IMAGE_SIZE, help="pixels (default: %(default)s)"
    )
    command.add_argument(
        "--noise", type=float, default=0.0, metavar="LEVELS", help="added before encrypting, as a mitigation (0)"
    )
    text = "a mitigation that is none: a secret orthogonal matrix in place of a permutation"
    command = add("orthogonal", text, ("plain",), ("base", "pairs"))
    command.set_defaults(pairs=[1, 2, 4])
    command.add_argument(
        "--keys", type=int, default=5, metavar="N", help="new matrices, one a repetition (%(default)s)"
    )
    command.add_argument(
        "--image-size", type=int, default=shared.DEFAULT_IMAGE_SIZE, help="pixels (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Attacks, prints the results, and writes the report.

    Raises:
      UserError: anything that the user can put right.
      SystemExit: with status 3, if an attack of --fail-on succeeded.
    """
    require("ppvit audit", "audit", "matplotlib", "sklearn")
    wanted = {name for name in arguments.fail_on.split(",") if name}
    if unknown := wanted - {*_names(), "any", "orthogonal"}:
        raise UserError(f"--fail-on has no attack {min(unknown)!r}: choose among any, {', '.join(_names())}")
    sources = read_sources(arguments)
    output = results_folder(arguments.output) if arguments.output else None
    if arguments.attack in _EXPERIMENTS:
        assert output is not None
        succeeded = _EXPERIMENTS[arguments.attack](arguments, sources, output)
    else:
        succeeded = _run_attacks(arguments, sources, output)
    if broken := [name for name in succeeded if name in wanted or "any" in wanted]:
        print(f"audit: {', '.join(broken)} succeeded, and --fail-on says to fail", file=sys.stderr)
        raise SystemExit(EXIT_BROKEN)


def _names() -> list[str]:
    return [attack.name for attack in attacks.ATTACKS]


def _run_attacks(arguments: argparse.Namespace, sources: Sources, output: Path | None) -> list[str]:
    """Runs the attack, or all that the inputs allow; returns the names of those that succeeded."""
    everything = arguments.attack == "all"
    chosen = attacks.ATTACKS if everything else (attacks.named(arguments.attack),)
    count = len(sources.models)
    if count > 2 or (not everything and "second_model" in chosen[0].needs and count != 2):
        raise UserError(f"--model is given {count} times: give it once for each of two models")
    findings, refused = [], {}
    for attack in chosen:
        if missing := [need for need in attack.needs if not getattr(sources, need)]:
            flags = ["a second --model" if need == "second_model" else f"--{need}" for need in missing]
            refused[attack.name] = f"it needs {' and '.join(flags)}"
            continue
        print(f"{attack.name}: the attacker has {attack.attacker_has}", file=sys.stderr)
        try:
            findings.append(attack.run(audit_inputs.open_inputs(attack, sources)))
        except UserError as error:
            if not everything:
                raise
            refused[attack.name] = str(error)
    if not findings:
        raise UserError(f"no attack could run: {'; '.join(f'{name}: {reason}' for name, reason in refused.items())}")
    files = {name.replace("_", " "): getattr(sources, name) for name in _AUDITED}
    audited = ", ".join(f"{name} {Path(file).name}" for name, file in files.items() if file)
    if output is None:
        print(report.markdown(findings, refused, audited, {}))
    else:
        comparison = _compare(arguments, sources) if everything and arguments.methods else []
        written = report.write(findings, refused, audited, output, comparison)
        print(written[0].read_text())
        print("\n".join(map(str, written)))
    return [finding.attack for finding in findings if finding.succeeded]


def _compare(arguments: argparse.Namespace, sources: Sources) -> list[str]:
    """Returns methods by attacks in Markdown, on the owner's images or else on photographs."""
    size, block_size = _COMPARED_SIZE, sources.block_size
    if sources.encrypted:
        encrypted = audit_inputs.open_encrypted(sources, 1)[0]
        size, block_size = encrypted.images.shape[1], encrypted.method.block_size
    images = [min(_COMPARED_IMAGES, max(sources.counts.images))]
    sources = dataclasses.replace(
        sources,
        plain=sources.plain or audit_inputs.PHOTOGRAPHS,
        block_size=block_size,
        counts=dataclasses.replace(sources.counts, images=images, candidates=_COMPARED_CANDIDATES),
        # A model is made plain by its key, to be adapted to other methods.
        base=sources.base if sources.key else None,
    )
    print("methods by attacks: with new keys", file=sys.stderr)
    comparison, measured = _measure(arguments, sources, attacks.ATTACKS, size)
    return [f"Measured: {measured}.", "", *matrix.tabulate(comparison)]


def _run_methods(arguments: argparse.Namespace, sources: Sources, output: Path) -> list[str]:
    """Measures methods by attacks with new keys; returns the names of the attacks that succeeded on any."""
    names = arguments.attacks.split(",") if arguments.attacks else _names()
    if unknown := set(names) - set(_names()):
        raise UserError(f"--attacks has no {min(unknown)!r}: choose among {', '.join(_names())}")
    chosen = [attack for attack in attacks.ATTACKS if attack.name in names]
    if not sources.plain and not all(attack.on_models for attack in chosen):
        raise UserError("attacks on images need some: give --plain, a folder or `photographs`, or other --attacks")
    comparison, measured = _measure(arguments, sources, chosen, arguments.image_size, arguments.noise)
    report.write_matrix(comparison, measured, output)
    print((output / "matrix.md").read_text())
    return list(dict.fromkeys(record.attack for record in comparison.records if record.succeeded))


def _measure(
    arguments: argparse.Namespace, sources: Sources, chosen: Sequence[Attack], size: int, noise: float = 0.0
) -> tuple[methods.Comparison, str]:
    """Tries attacks on the methods of --methods; returns the results, and what was measured on what."""
    if arguments.keys < 1 or noise < 0:
        raise UserError("--keys needs at least 1, and --noise 0 or more")
    encryptions = [
        shared.open_encryption(spec, usual_block_size(spec, sources.block_size)) for spec in arguments.methods
    ]
    material = audit_inputs.open_material(sources, chosen, size, noise)
    comparison = methods.compare(encryptions, material, chosen, keys=arguments.keys, seed=sources.seed)
    return comparison, audit_inputs.describe_material(sources, material, arguments.keys)


def _run_orthogonal(arguments: argparse.Namespace, sources: Sources, output: Path) -> list[str]:
    """Recovers secret orthogonal matrices; returns the subcommand's name if they are no better than permutations."""
    assert sources.plain is not None
    if arguments.keys < 1:
        raise UserError(f"--keys is {arguments.keys}: give at least 1")
    size, pairs, unseen = arguments.image_size, sources.counts.pairs, orthogonal_experiment.UNSEEN
    plain = audit_inputs.open_images(sources.plain, sources, size, max(pairs) + unseen)
    base = audit_inputs.open_model(sources.base)[0] if sources.base else None
    seeds = [(sources.seed, number) for number in range(arguments.keys)]
    results = orthogonal_experiment.measure(plain, sources.block_size, pairs, base, seeds)
    measured = (
        f"patches of {sources.block_size}x{sources.block_size} of {unseen} images of {Path(sources.plain).name} at "
        f"{size}x{size}, each multiplied by one secret orthogonal matrix; seed {sources.seed}"
    )
    text = orthogonal_experiment.markdown(results, measured)
    write_text(output / "orthogonal.md", text)
    print(text)
    best = max(min(picture.ssim for picture in pictures) for pictures in results.values())
    return ["orthogonal"] if best >= SUCCESS else []


_EXPERIMENTS = {"methods": _run_methods, "orthogonal": _run_orthogonal}
