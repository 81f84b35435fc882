"""Reports of the audit: audit.md and matrix.md, the same results as JSON, and pictures."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ppvit_jax.audit import attacks, matrix
from ppvit_jax.audit.attack import Finding, Row
from ppvit_jax.audit.methods import Comparison
from ppvit_jax.audit.pictures import draw_recovered
from ppvit_jax.files import cell, markdown_table, write_json, write_text

CAVEAT = (
    "The audit tries only these attacks, as this program implements them. A failed attack proves nothing: a better "
    "one may succeed."
)
SYMMETRY = (
    "Places and pictures are scored up to changes that a viewer can undo by eye: the 8 flips and rotations, the 6 "
    "channel orders, and inversion, each applied to all images alike."
)


def write(
    findings: Sequence[Finding], refused: Mapping[str, str], audited: str, output: Path, comparison: Sequence[str]
) -> list[Path]:
    """Writes audit.md, audit.json and a picture for every attack that recovered images.

    Args:
      findings: results of the attacks that ran.
      refused: the reasons why other attacks did not run, by attack.
      audited: one line that names the attacked models and images.
      output: an existing folder.
      comparison: the matrix of methods by attacks as lines of Markdown, to be included in audit.md.

    Returns:
      The paths of the files.
    """
    files = [output / "audit.md", output / "audit.json"]
    drawn = {}
    for finding in findings:
        if finding.pictures:
            drawn[finding.attack] = f"{finding.attack}.png"
            files.append(output / drawn[finding.attack])
            title = f"{finding.attack}: {finding.summary}"
            draw_recovered(_picture_rows(finding), files[-1], title)
    write_text(files[0], markdown(findings, refused, audited, drawn, comparison))
    content = [
        {
            "attack": finding.attack,
            "attacker_has": attacks.named(finding.attack).attacker_has,
            "summary": finding.summary,
            "succeeded": finding.succeeded,
            "seconds": finding.seconds,
            "rows": [_finite(row) for row in finding.rows],
        }
        for finding in findings
    ]
    write_json(files[1], {"audited": audited, "attacks": content, "not_run": refused, "note": CAVEAT})
    return files


def write_matrix(comparison: Comparison, measured: str, output: Path) -> None:
    """Writes matrix.md, matrix.json and a picture for every attack that recovered images.

    Args:
      comparison: results of all attacks on all methods.
      measured: one line that describes the images and models.
      output: an existing folder.
    """
    over = "keys" if all(record.draw is None for record in comparison.records) else "keys and draws"
    lines = ["# Methods by attacks", "", f"Measured: {measured}. Median and range over the {over}.", ""]
    lines += [*matrix.tabulate(comparison), "", CAVEAT, SYMMETRY, *matrix.summarize(comparison.records), ""]
    write_text(output / "matrix.md", "\n".join(lines))
    rows = [
        {
            "method": record.method,
            "repetition": record.repetition,
            **({} if record.draw is None else {"draw": record.draw}),
            "attack": record.attack,
            "succeeded": record.succeeded,
            **_finite(record.row),
        }
        for record in comparison.records
    ]
    reasons = [
        {"method": spec, "attack": name, "reason": reason} for (spec, name), reason in comparison.refused.items()
    ]
    write_json(output / "matrix.json", {"measured": measured, "rows": rows, "not_run": reasons, "note": CAVEAT})
    for name in dict.fromkeys(finding.attack for _, finding in comparison.pictures):
        label = attacks.named(name).label
        shown = [
            (f"{spec}, {finding.rows[-1][label]} {label}" if label else spec, _most_detailed(finding))
            for spec, finding in comparison.pictures
            if finding.attack == name
        ]
        draw_recovered(shown, output / f"{name}.png", f"{name}: {measured}")


def markdown(
    findings: Sequence[Finding],
    refused: Mapping[str, str],
    audited: str,
    drawn: Mapping[str, str],
    comparison: Sequence[str] = (),
) -> str:
    """Returns the content of audit.md. `drawn` has the pictures' file names by attack; see `write` for the rest."""
    lines = [f"# Audit of {audited}", "", "| Attack | The attacker has | Result | Succeeded | Seconds |"]
    lines.append("|---|---|---|---|---:|")
    for finding in findings:
        verdict = {True: "**yes**", False: "no", None: "not scored"}[finding.succeeded]
        attacker_has = attacks.named(finding.attack).attacker_has
        lines.append(f"| {finding.attack} | {attacker_has} | {finding.summary} | {verdict} | {finding.seconds:.2g} |")
    lines += [f"| {name} | {attacks.named(name).attacker_has} | not run: {why} | | |" for name, why in refused.items()]
    lines += ["", CAVEAT, SYMMETRY]
    for finding in findings:
        names = list(dict.fromkeys(name for row in finding.rows for name in row))
        rows = [[cell(row.get(name)) for name in names] for row in finding.rows]
        lines += ["", f"## {finding.attack}", "", *markdown_table(names, rows)]
        if finding.attack in drawn:
            lines += ["", f"![{finding.summary}]({drawn[finding.attack]})"]
    if comparison:
        lines += ["", "## Methods by attacks", "", *comparison]
    return "\n".join([*lines, ""])


def _picture_rows(finding: Finding) -> list[tuple[str, dict[str, np.ndarray]]]:
    images = zip(*finding.pictures.values(), strict=False)
    return [("", dict(zip(finding.pictures, row, strict=True))) for row in images]


def _most_detailed(finding: Finding) -> dict[str, np.ndarray]:
    # A picture with little detail, such as a clear sky, does not show if it was recovered.
    detail = next(reversed(finding.pictures.values())).std(axis=(1, 2, 3))
    return {title: images[detail.argmax()] for title, images in finding.pictures.items()}


def _finite(row: Row) -> dict[str, str | float | None]:
    """Replaces infinity and NaN, which JSON lacks, by None."""
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}
