"""Methods by attacks: every encryption of the registry with new keys, and everything that is built against it."""

import dataclasses
import hashlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ppvit_jax.adaptation import adapt
from ppvit_jax.audit import evaluation
from ppvit_jax.audit.finding import KNOWLEDGE, Finding
from ppvit_jax.encryption import Encryption
from ppvit_jax.errors import UserError
from ppvit_jax.files import cell, markdown_table
from ppvit_jax.keys import SecretKey
from ppvit_jax.models import Params

# Of each attack, the measure that stands for it in the matrix.
MEASURES = {
    "weights": "recovered",
    "position-embedding": "neighbours",
    "link": "deviations above",
    "known-plaintext": "SSIM",
    "dictionary": "identified",
    "ciphertext-only": "SSIM",
}
# What a row is of; everything else in it is measured.
_LABELS = ("method", "repetition", "attack", "succeeded")
_HEADS = {
    "weights": "weights: rows recovered",
    "position-embedding": "position embedding: neighbours",
    "link": "link: deviations above chance",
    "known-plaintext": "known plaintext: SSIM",
    "dictionary": "dictionary: identified",
    "ciphertext-only": "ciphertext only: SSIM",
}


@dataclasses.dataclass(frozen=True)
class Models:
    """Plain Vision Transformers of one shape, to be adapted with every key.

    base: what everyone can have.
    tuned: the same after fine-tuning.
    block_size, image_size: in pixels.
    """

    base: Params
    tuned: Params
    block_size: int
    image_size: int


@dataclasses.dataclass(frozen=True)
class Material:
    """What the attacks are tried on.

    plain: uint8 [n, side, side, 3]; none leaves out the attacks on images.
    reference: other images of the same kind, or None.
    pairs, counts: numbers of pairs, and of encrypted images, to attack with.
    noise: standard deviation, in grey levels, of noise that the owner adds before encrypting; 0 for none.
    models: None leaves out the attacks on models.
    """

    plain: np.ndarray
    reference: np.ndarray | None
    pairs: Sequence[int]
    counts: Sequence[int]
    noise: float = 0.0
    models: Models | None = None


def experiment_key(seed: int, number: int) -> SecretKey:
    """The key of one repetition, for experiments alone: whoever knows the seed can make it."""
    return SecretKey(hashlib.sha256(f"ppvit audit {seed} {number}".encode()).digest())


def attack(
    method: Encryption,
    material: Material,
    seed: int,
    number: int,
    attacks: Sequence[str],
    done: Callable[[str], None] = lambda name: None,
) -> tuple[list[Finding], dict[str, str]]:
    """Tries everything on one method under one key; `done` is called after each attack, with its name.

    Returns:
      The findings; and why the other attacks do not apply, by their names.
    """
    key, other = experiment_key(seed, 2 * number), experiment_key(seed, 2 * number + 1)
    findings, refused = [], {}

    def attempt(name: str, run: Callable[[], Finding]) -> None:
        if name not in attacks:
            return
        try:
            findings.append(run())
        except UserError as error:
            refused[name] = str(error)
        done(name)

    if models := material.models:
        size = {"height": models.image_size, "width": models.image_size}
        adapted = dataclasses.replace(method, block_size=models.block_size)
        try:
            permutations = adapted.absorb(key, **size)
            model = adapt(models.tuned, permutations)
            second = adapt(models.tuned, adapted.absorb(other, **size))
        except UserError as error:
            refused |= {name: str(error) for name in ("weights", "position-embedding", "link") if name in attacks}
        else:
            attempt("weights", lambda: evaluation.audit_weights(models.base, model, permutations))
            attempt("position-embedding", lambda: evaluation.audit_position_embedding(model, permutations))
            attempt("link", lambda: evaluation.audit_link(model, second))
    plain = material.plain
    if not len(plain):
        return findings, refused
    side = plain.shape[1]
    numbers = np.arange(len(plain), dtype=np.uint32)
    random = np.random.default_rng([seed, number])
    order = random.permutation(len(plain))
    plain = plain[order]
    shown = plain
    if material.noise:
        noisy = plain + random.normal(0, material.noise, plain.shape)
        shown = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    secret = method.derive(key, height=side, width=side)
    encrypted = method.encrypt(shown, secret, numbers)
    attempt(
        "known-plaintext",
        lambda: evaluation.audit_known_plaintext(method, shown, encrypted, material.pairs, summarise=False),
    )
    attempt(
        "dictionary",
        lambda: evaluation.audit_dictionary(method, plain, encrypted, numbers.astype(np.int64), summarise=False),
    )
    attempt(
        "ciphertext-only",
        lambda: evaluation.audit_ciphertext_only(
            method,
            encrypted,
            material.counts,
            plain=plain,
            truth=secret,
            reference=material.reference,
            seed=number,
        ),
    )
    return findings, refused


def records(spec: str, number: int, findings: list[Finding]) -> list[dict[str, Any]]:
    """Flat rows for a table: the method, the repetition, the attack and each of its measures."""
    return [
        {"method": spec, "repetition": number, "attack": finding.attack, "succeeded": finding.succeeded, **row}
        for finding in findings
        for row in finding.rows
    ]


def summarise(rows: list[dict[str, Any]]) -> list[str]:
    """Tables in Markdown, one for each attack: median and range over the repetitions of every measure."""
    lines: list[str] = []
    for attack_name in dict.fromkeys(row["attack"] for row in rows):
        own = [row for row in rows if row["attack"] == attack_name]
        names = [name for name in dict.fromkeys(key for row in own for key in row) if name not in _LABELS]
        given = [name for name in ("rows of", "tensors", "pairs", "images", "candidates") if name in names]
        measured = [name for name in names if name not in given]
        head = ["method", *given, "keys", *measured]
        lines += ["", f"## {attack_name}", "", f"The attacker has {KNOWLEDGE[attack_name]}.", ""]
        groups: dict[tuple, list[dict[str, Any]]] = {}
        for row in own:
            groups.setdefault((row["method"], *(row.get(name) for name in given)), []).append(row)
        body = []
        for group, members in groups.items():
            cells = [f"`{group[0]}`", *(cell(value) for value in group[1:]), str(len(members))]
            body.append(cells + [spread([row[name] for row in members if name in row]) for name in measured])
        lines += markdown_table(head, body)
    return lines


def tabulate(specs: Sequence[str], rows: list[dict[str, Any]], refused: dict[tuple[str, str], str]) -> list[str]:
    """The matrix in Markdown: of every attack its measure, median and range over the keys; of the last row of each."""
    tried = {row["attack"] for row in rows} | {name for _, name in refused}
    attacks = [name for name in MEASURES if name in tried]
    notes: dict[str, int] = {}
    body = []
    for spec in specs:
        cells = [f"`{spec}`"]
        for name in attacks:
            last: dict[int, dict[str, Any]] = {}
            for row in rows:
                if (row["method"], row["attack"]) != (spec, name) or MEASURES[name] not in row:
                    continue
                known = last.get(row["repetition"])
                # Of a model's tensors the one that gives less away; of more and more images the most.
                if known is None or "images" in row or "pairs" in row or row[MEASURES[name]] < known[MEASURES[name]]:
                    last[row["repetition"]] = row
            if last:
                cells.append(spread([row[MEASURES[name]] for row in last.values()]))
            else:
                note = notes.setdefault(refused.get((spec, name), "not run"), len(notes) + 1)
                cells.append(f"- ({note})")
        body.append(cells)
    lines = markdown_table(["method", *(_HEADS[name] for name in attacks)], body)
    return [*lines, "", *(f"{number}. {reason}" for reason, number in notes.items())]


def spread(values: list[Any]) -> str:
    """Median, and the range where there is one."""
    if not values:
        return ""
    low, high = min(values), max(values)
    middle = statistics.median(values)
    return cell(middle) if cell(low) == cell(high) else f"{cell(middle)} ({cell(low)} to {cell(high)})"
