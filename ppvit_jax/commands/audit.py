"""The command `ppvit audit`: attacks the images and models that the cloud is given, and measures the result."""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from ppvit_jax.audit import attacks, matrix, methods, orthogonal_experiment, report
from ppvit_jax.audit.attack import SUCCESS, Attack, Need, Option
from ppvit_jax.command_line import Number
from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.commands.shared import audit_inputs
from ppvit_jax.commands.shared.audit_arguments import Sources, add_comparison, add_image_size, add_sources, read_sources
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.commands.shared.output import results_in
from ppvit_jax.encryption import usual_block_size
from ppvit_jax.errors import COUNT, SEED, Range, UserError, require
from ppvit_jax.files import write_text

EXIT_BROKEN = 3
# Sizes of the comparison that is part of the report of `all`.
_COMPARED_SIZE, _COMPARED_IMAGES, _COMPARED_CANDIDATES = 224, 20, 100
# Inputs in the order in which a report names them.
_AUDITED = ("base", "model", "second_model", "encrypted", "plain")
# Arguments of the examples in the help.
_USUAL: tuple[Need, ...] = ("base", "model", "plain", "encrypted")
_EXAMPLES: dict[Need, str] = {
    "base": "--base ViT-B_16.npz",
    "model": "--model adapted.npz",
    "second_model": "--model adapted_again.npz",
    "plain": "--plain images",
    "encrypted": "--encrypted encrypted",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a subcommand for each attack, and `all`, `methods` and `orthogonal`."""
    describe(
        parser,
        "Attacks the images and models that the cloud is given, and measures how much each attack recovers. The owner "
        f"runs it, before giving them away. {report.CAVEAT}",
        "ppvit audit weights --help",
        f"ppvit audit all {_example(_USUAL)} --output audit",
    )
    subcommands = parser.add_subparsers(dest="attack", required=True, metavar="ATTACK")
    for attack in attacks.ATTACKS:
        text = f"the attacker has {attack.attacker_has}"
        command = subcommands.add_parser(attack.name, help=text)
        description = f"Runs the attack {attack.name!r}, in which {text}. {report.CAVEAT}"
        describe(command, description, f"ppvit audit {attack.name} {_example(attack.needs)}")
        add_sources(command, attack.needs, attack.uses)
        _add_output(command, required=False)

    command = subcommands.add_parser("all", help="every attack that the given files allow, in one report")
    describe(
        command,
        "Runs every attack that the given files allow, compares encryptions under new keys, and writes one report. "
        f"{report.CAVEAT}",
        f"ppvit audit all {_example(_USUAL)} --output audit",
    )
    add_sources(command, (), (*get_args(Need), *get_args(Option)))
    _add_output(command, required=True)
    add_comparison(command, keys=1)

    command = subcommands.add_parser("methods", help="a table of encryptions by attacks, under new keys")
    describe(
        command,
        f"Encrypts your images by several methods with new keys, and runs the attacks on each. {report.CAVEAT}",
        "ppvit audit methods --plain photographs --methods bs+ps etc:shared=True --output comparison",
    )
    inputs = ("plain", "reference", "pairs", "images", "candidates", "base", "model", "key")
    add_sources(command, (), inputs)
    _add_output(command, required=True)
    add_comparison(command, keys=5)
    command.add_argument(
        "--attacks",
        default="",
        metavar="NAMES",
        help=f"attacks to run, separated by commas, among {', '.join(_names())} (default: all)",
    )
    add_image_size(command)
    command.add_argument(
        "--draws",
        type=int,
        action=Number,
        range=COUNT,
        metavar="N",
        help="number of draws of images, each of which every key encrypts (default: one draw for each key)",
    )
    command.add_argument(
        "--noise",
        type=float,
        action=Number,
        range=Range(0, 255),
        default=0.0,
        metavar="LEVELS",
        help="standard deviation of noise that the owner adds before encrypting, in gray levels of 255 "
        "(default: %(default)s)",
    )

    command = subcommands.add_parser("orthogonal", help="a secret orthogonal matrix in place of a permutation")
    describe(
        command,
        "Recovers a secret orthogonal matrix that multiplies the blocks of an image in place of a permutation. It "
        f"shows that such a matrix protects images no better. {report.CAVEAT}",
        "ppvit audit orthogonal --plain photographs --output orthogonal",
    )
    add_sources(command, ("plain",), ("base", "pairs"))
    command.set_defaults(pairs="1,2,4")
    _add_output(command, required=True)
    command.add_argument(
        "--keys",
        type=int,
        action=Number,
        range=COUNT,
        default=5,
        metavar="N",
        help="number of matrices to recover (default: %(default)s)",
    )
    add_image_size(command)
    for command in subcommands.choices.values():
        command.allow_abbrev = False


def run(arguments: argparse.Namespace) -> None:
    """Runs the attacks, prints the results, and writes the report.

    Raises:
      UserError: the arguments or files cannot be used.
      SystemExit: an attack that --fail-on names succeeded; the status is 3.
    """
    require("ppvit audit", "audit", "matplotlib", "skimage", "sklearn")
    wanted = {name for name in arguments.fail_on.split(",") if name}
    if unknown := wanted - {*_names(), "any", "orthogonal"}:
        raise UserError(f"--fail-on names the unknown attack {min(unknown)!r}: choose among any, {', '.join(_names())}")
    sources = read_sources(arguments)
    with results_in(arguments.output) if arguments.output else contextlib.nullcontext() as output:
        if arguments.attack in _EXPERIMENTS:
            assert output is not None
            succeeded = _EXPERIMENTS[arguments.attack](arguments, sources, output)
        else:
            succeeded = _run_attacks(arguments, sources, output)
    if broken := [name for name in succeeded if name in wanted or "any" in wanted]:
        print(f"audit: {', '.join(broken)} succeeded, so the command fails as --fail-on asks", file=sys.stderr)
        raise SystemExit(EXIT_BROKEN)


def _example(needs: Sequence[Need]) -> str:
    return " ".join(_EXAMPLES[need] for need in needs)


def _add_output(command: argparse.ArgumentParser, *, required: bool) -> None:
    """Adds --seed, --output and --fail-on."""
    command.add_argument(
        "--seed",
        type=int,
        action=Number,
        range=SEED,
        default=0,
        metavar="N",
        help="seed of the random choice of images, 0 or more (default: %(default)s)",
    )
    command.add_argument(
        "--output",
        required=required,
        metavar="DIR",
        help=f"folder to write the report and pictures to{'' if required else ' (default: print the report alone)'}",
    )
    command.add_argument(
        "--fail-on",
        default="",
        metavar="ATTACKS",
        help=f"exit with status {EXIT_BROKEN} if one of these attacks succeeds, for use in a pipeline: names separated "
        "by commas, or any (default: none)",
    )


def _names() -> list[str]:
    return [attack.name for attack in attacks.ATTACKS]


def _run_attacks(arguments: argparse.Namespace, sources: Sources, output: Path | None) -> list[str]:
    """Runs one attack, or all that the inputs allow; returns the names of those that succeeded."""
    everything = arguments.attack == "all"
    chosen = attacks.ATTACKS if everything else (attacks.named(arguments.attack),)
    count = len(sources.models)
    if count > 2 or (not everything and "second_model" in chosen[0].needs and count != 2):
        raise UserError(f"the number of models is {count}: give --model once for each of two models")
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
    """Returns the table of encryptions by attacks in Markdown, on the owner's images or, without any, photographs."""
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
        # The key makes the model plain, so that it can be adapted to other encryptions.
        base=sources.base if sources.key else None,
    )
    print("comparing encryptions under new keys", file=sys.stderr)
    comparison, measured = _measure(arguments, sources, attacks.ATTACKS, size)
    return [f"Measured: {measured}.", "", *matrix.tabulate(comparison)]


def _run_methods(arguments: argparse.Namespace, sources: Sources, output: Path) -> list[str]:
    """Attacks each encryption with new keys; returns the names of the attacks that succeeded on any of them."""
    names = arguments.attacks.split(",") if arguments.attacks else _names()
    if unknown := set(names) - set(_names()):
        raise UserError(f"--attacks names the unknown attack {min(unknown)!r}: choose among {', '.join(_names())}")
    chosen = [attack for attack in attacks.ATTACKS if attack.name in names]
    if not sources.plain and not all(attack.on_models for attack in chosen):
        raise UserError(
            "the attacks on images need plain ones: give --plain DIR, --plain photographs, or other --attacks"
        )
    comparison, measured = _measure(
        arguments, sources, chosen, arguments.image_size, noise=arguments.noise, draws=arguments.draws
    )
    report.write_matrix(comparison, measured, output)
    print((output / "matrix.md").read_text())
    return list(dict.fromkeys(record.attack for record in comparison.records if record.succeeded))


def _measure(
    arguments: argparse.Namespace,
    sources: Sources,
    chosen: Sequence[Attack],
    size: int,
    *,
    noise: float = 0.0,
    draws: int | None = None,
) -> tuple[methods.Comparison, str]:
    """Tries the attacks on the encryptions of --methods; returns the results and a description of the inputs."""
    encryptions = [
        shared.open_encryption(spec, usual_block_size(spec, sources.block_size)) for spec in arguments.methods
    ]
    material = audit_inputs.open_material(sources, chosen, size, noise)
    comparison = methods.compare(encryptions, material, chosen, keys=arguments.keys, seed=sources.seed, draws=draws)
    return comparison, audit_inputs.describe_material(sources, material, arguments.keys, draws)


def _run_orthogonal(arguments: argparse.Namespace, sources: Sources, output: Path) -> list[str]:
    """Recovers secret orthogonal matrices; returns the subcommand's name if they are no better than permutations."""
    assert sources.plain is not None
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
