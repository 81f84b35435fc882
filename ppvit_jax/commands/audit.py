"""The command `ppvit audit`: attacks on what the cloud is given, and how much they recover."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ppvit_jax.audit import evaluation, matrix, report
from ppvit_jax.audit.finding import KNOWLEDGE, Finding
from ppvit_jax.commands import audit_methods, audit_orthogonal
from ppvit_jax.commands.shared import audit_inputs
from ppvit_jax.commands.shared.output import results_folder
from ppvit_jax.data.progress import Progress
from ppvit_jax.errors import UserError

EXIT_BROKEN = 3
# Of methods by attacks in the report of all.
_COMPARED_SIZE, _COMPARED_IMAGES, _COMPARED_CANDIDATES = 224, 20, 100
_NEEDED = {"second model": "a second --model"}
_TRIED = {
    "weights": ("base", "model"),
    "known-plaintext": ("plain", "encrypted"),
    "ciphertext-only": ("encrypted",),
    "dictionary": ("plain", "encrypted"),
    "link": ("model", "second model"),
    "position-embedding": ("model",),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a sub-command for each attack, and `all` and `methods`."""
    parser.description = f"Attacks, and how much they recover. {report.CAVEAT}"
    attacks = parser.add_subparsers(dest="attack", required=True, metavar="ATTACK")

    def add(name: str, text: str, *names: str, output: bool = False) -> argparse.ArgumentParser:
        command = attacks.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}. {report.CAVEAT}")
        audit_inputs.add_arguments(command, names)
        command.add_argument("--seed", type=int, default=0, help="of the choice of images (default: %(default)s)")
        command.add_argument("--output", required=output, metavar="DIR", help="folder for the report and pictures")
        command.add_argument(
            "--fail-on",
            default="",
            metavar="ATTACKS",
            help=f"exit with status {EXIT_BROKEN} if one of these, or `any`, succeeds: for use in a pipeline",
        )
        return command

    for name, names in {
        "weights": ("base", "model", "key"),
        "known-plaintext": ("plain", "encrypted", "pairs", "key"),
        "ciphertext-only": ("encrypted", "reference", "images", "plain?", "key"),
        "dictionary": ("plain", "encrypted", "candidates", "key"),
        "link": ("models",),
        "position-embedding": ("model", "key"),
    }.items():
        add(name, f"the attacker has {KNOWLEDGE[name]}", *names)
    optional = ("base?", "models?", "plain?", "encrypted?")
    everything = add(
        "all",
        "every attack that the given files allow, and methods by attacks, in one report",
        *optional,
        "reference",
        "pairs",
        "images",
        "candidates",
        "key",
        output=True,
    )
    audit_methods.add_comparison(everything, keys=1)
    audit_methods.add_arguments(add("methods", "methods by attacks: new keys, every attack", output=True))
    text = "a mitigation that is none: a secret orthogonal matrix in place of a permutation"
    audit_orthogonal.add_arguments(add("orthogonal", text, output=True))


def run(arguments: argparse.Namespace) -> None:
    """Attacks, prints what was found, and writes the report.

    Raises:
      UserError: anything that the user can put right.
      SystemExit: with status 3, if an attack of --fail-on succeeded.
    """
    wanted = {name for name in arguments.fail_on.split(",") if name}
    if unknown := wanted - {*KNOWLEDGE, "any", "orthogonal"}:
        raise UserError(f"--fail-on has no attack {min(unknown)!r}: choose among any, {', '.join(KNOWLEDGE)}")
    for name, least in (("seed", 0), ("candidates", 1), ("image_size", 1)):
        if getattr(arguments, name, least) < least:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}: give {least} or more")
    output = results_folder(arguments.output) if arguments.output else None
    if arguments.attack in _EXPERIMENTS:
        assert output is not None
        succeeded = _EXPERIMENTS[arguments.attack](arguments, output)
    else:
        succeeded = _attacks(arguments, output)
    if broken := [name for name in succeeded if name in wanted or "any" in wanted]:
        print(f"audit: {', '.join(broken)} succeeded, and --fail-on says to fail", file=sys.stderr)
        raise SystemExit(EXIT_BROKEN)


def _attacks(arguments: argparse.Namespace, output: Path | None) -> list[str]:
    """Runs the attack, or all that the inputs allow; the names of those that succeeded."""
    given = dict(vars(arguments))
    models = given.get("model") or []
    if isinstance(models, list):
        if len(models) > 2 or (arguments.attack == "link" and len(models) != 2):
            raise UserError(f"--model is given {len(models)} times: give it once for each of two models")
        arguments.model, arguments.second_model = (*models, None, None)[:2]
        given |= {"model": arguments.model, "second model": arguments.second_model}
    findings, refused = [], {}
    for name in KNOWLEDGE if arguments.attack == "all" else [arguments.attack]:
        if missing := [part for part in _TRIED[name] if not given.get(part)]:
            refused[name] = f"it needs {' and '.join(_NEEDED.get(part, f'--{part}') for part in missing)}"
            continue
        print(f"{name}: the attacker has {KNOWLEDGE[name]}", file=sys.stderr)
        try:
            findings.append(_RUN[name](arguments))
        except UserError as error:
            if arguments.attack != "all":
                raise
            refused[name] = str(error)
    if not findings:
        raise UserError(f"no attack could run: {'; '.join(f'{name}: {reason}' for name, reason in refused.items())}")
    names = ("base", "model", "second model", "encrypted", "plain")
    what = ", ".join(f"{name} {Path(given[name]).name}" for name in names if given.get(name))
    if output is None:
        print(report.markdown(findings, refused, what, {}))
    else:
        compared = _compare(arguments) if arguments.attack == "all" and arguments.methods else []
        files = report.write(findings, refused, what, output, compared)
        print(files[0].read_text())
        print("\n".join(map(str, files)))
    return [finding.attack for finding in findings if finding.succeeded]


def _compare(arguments: argparse.Namespace) -> list[str]:
    """The matrix of methods by attacks, in Markdown, on the owner's images or else on photographs."""
    compared = argparse.Namespace(**vars(arguments))
    size = _COMPARED_SIZE
    if arguments.encrypted:
        encrypted = audit_inputs.open_encrypted(arguments, 1)
        size, compared.patch_size = encrypted.images.shape[1], encrypted.method.block_size
    compared.plain = arguments.plain or audit_inputs.PHOTOGRAPHS
    compared.images, compared.candidates = [min(_COMPARED_IMAGES, max(arguments.images))], _COMPARED_CANDIDATES
    if not arguments.key:
        # A model is made plain by its key, to be adapted to other methods.
        compared.base = None
    print("methods by attacks: with new keys", file=sys.stderr)
    found = audit_methods.measure(compared, list(KNOWLEDGE), size)
    return [f"Measured: {found.what}.", "", *matrix.tabulate(found.specs, found.rows, found.refused)]


def _weights(arguments: argparse.Namespace) -> Finding:
    model, metadata, shape = audit_inputs.open_model(arguments.model)
    base, _, _ = audit_inputs.open_model(arguments.base, shape.image_size)
    return evaluation.audit_weights(base, model, audit_inputs.model_truth(arguments, metadata, shape))


def _position_embedding(arguments: argparse.Namespace) -> Finding:
    model, metadata, shape = audit_inputs.open_model(arguments.model)
    return evaluation.audit_position_embedding(model, audit_inputs.model_truth(arguments, metadata, shape))


def _link(arguments: argparse.Namespace) -> Finding:
    return evaluation.audit_link(
        *(audit_inputs.open_model(name)[0] for name in (arguments.model, arguments.second_model))
    )


def _known_plaintext(arguments: argparse.Namespace) -> Finding:
    encrypted = audit_inputs.open_encrypted(arguments, 2 * max(arguments.pairs) + 20)
    plain = audit_inputs.open_plain(arguments.plain, arguments, encrypted)
    if len(plain) < 2:
        raise UserError("one pair leaves none to check with: give at least two images")
    return evaluation.audit_known_plaintext(encrypted.method, plain, encrypted.images, arguments.pairs)


def _ciphertext_only(arguments: argparse.Namespace) -> Finding:
    encrypted = audit_inputs.open_encrypted(arguments, max(arguments.images))
    plain = audit_inputs.open_plain(arguments.plain, arguments, encrypted) if arguments.plain else None
    reference = None
    if arguments.reference:
        size = encrypted.images.shape[1]
        reference = audit_inputs.open_images(arguments.reference, arguments, size, 200, arguments.seed + 1)
    progress = Progress("ciphertext-only", len(arguments.images), "numbers of images")
    found = evaluation.audit_ciphertext_only(
        encrypted.method,
        encrypted.images,
        arguments.images,
        plain=plain,
        truth=encrypted.truth,
        reference=reference,
        seed=arguments.seed,
        done=progress.update,
    )
    progress.close()
    return found


def _dictionary(arguments: argparse.Namespace) -> Finding:
    encrypted = audit_inputs.open_encrypted(arguments, arguments.candidates)
    plain = audit_inputs.open_plain(arguments.plain, arguments, encrypted)
    # In another order than the encrypted ones, so that it has to be found.
    order = np.random.default_rng(arguments.seed).permutation(len(plain))
    return evaluation.audit_dictionary(encrypted.method, plain[order], encrypted.images, np.argsort(order))


_EXPERIMENTS = {"methods": audit_methods.run, "orthogonal": audit_orthogonal.run}
_RUN: dict[str, Callable[[argparse.Namespace], Finding]] = {
    "weights": _weights,
    "known-plaintext": _known_plaintext,
    "ciphertext-only": _ciphertext_only,
    "dictionary": _dictionary,
    "link": _link,
    "position-embedding": _position_embedding,
}
