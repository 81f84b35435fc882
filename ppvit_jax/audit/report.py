"""The audit's results as audit.md, audit.json and pictures."""

import math
from pathlib import Path
from typing import Any

from ppvit_jax.audit import matrix
from ppvit_jax.audit.finding import KNOWLEDGE, Finding
from ppvit_jax.audit.pictures import draw_recovered
from ppvit_jax.files import cell, markdown_table, write_json, write_text

CAVEAT = (
    "These are the attacks that were tried, in this program's version of them. A failed attack proves nothing: a "
    "better one may succeed."
)
SYMMETRY = (
    "Places and pictures count up to what a viewer puts right by eye: the 8 flips and rotations, the 6 orders of the "
    "channels and inverting everything, alike in all images."
)


def write(findings: list[Finding], refused: dict[str, str], what: str, output: Path, compared: list[str]) -> list[Path]:
    """Writes the report into a folder that exists.

    Args:
      findings: of the attacks that ran.
      refused: why others did not, by their names.
      what: was audited: one line.
      output: the folder.
      compared: a table of methods by attacks, lines in Markdown, to be part of the report.

    Returns:
      The files.
    """
    files = [output / "audit.md", output / "audit.json"]
    drawn = {}
    for finding in findings:
        if finding.pictures:
            drawn[finding.attack] = f"{finding.attack}.png"
            files.append(output / drawn[finding.attack])
            title = f"{finding.attack}: {finding.summary}"
            draw_recovered(_picture_rows(finding), files[-1], title)
    write_text(files[0], markdown(findings, refused, what, drawn, compared))
    content = [
        {
            "attack": finding.attack,
            "attacker_has": KNOWLEDGE[finding.attack],
            "summary": finding.summary,
            "succeeded": finding.succeeded,
            "seconds": finding.seconds,
            "rows": [_finite(row) for row in finding.rows],
        }
        for finding in findings
    ]
    write_json(files[1], {"audited": what, "attacks": content, "not_run": refused, "note": CAVEAT})
    return files


def write_matrix(
    specs: list[str],
    rows: list[dict[str, Any]],
    refused: dict[tuple[str, str], str],
    pictures: list[tuple[str, Finding]],
    what: str,
    output: Path,
) -> None:
    """Writes matrix.md, matrix.json and a picture for every method and attack that recovered any.

    Args:
      specs: the methods, in order.
      rows: from `matrix.records`.
      refused: why an attack does not apply, by method and attack.
      pictures: the first finding of every method and attack with pictures.
      what: was measured on what, one line.
      output: the folder.
    """
    lines = ["# Methods by attacks", "", f"Measured: {what}. Median and range over the keys.", ""]
    lines += [*matrix.tabulate(specs, rows, refused), "", CAVEAT, SYMMETRY, *matrix.summarise(rows), ""]
    write_text(output / "matrix.md", "\n".join(lines))
    reasons = [{"method": spec, "attack": name, "reason": reason} for (spec, name), reason in refused.items()]
    content = {"measured": what, "rows": [_finite(row) for row in rows], "not_run": reasons, "note": CAVEAT}
    write_json(output / "matrix.json", content)
    for attack in dict.fromkeys(finding.attack for _, finding in pictures):
        shown = []
        for spec, finding in pictures:
            if finding.attack == attack:
                last = finding.rows[-1]
                count = next(f"{last[name]} {name}" for name in ("images", "pairs") if name in last)
                shown.append((f"{spec}, {count}", _most_detailed(finding)))
        draw_recovered(shown, output / f"{attack}.png", f"{attack}: {what}")


def markdown(
    findings: list[Finding],
    refused: dict[str, str],
    what: str,
    drawn: dict[str, str],
    compared: list[str] | None = None,
) -> str:
    """The content of audit.md; `drawn` are the pictures' file names by attack."""
    lines = [f"# Audit of {what}", "", "| Attack | The attacker has | Result | Succeeded | Seconds |"]
    lines.append("|---|---|---|---|---:|")
    for finding in findings:
        verdict = {True: "**yes**", False: "no", None: "not scored"}[finding.succeeded]
        known = KNOWLEDGE[finding.attack]
        lines.append(f"| {finding.attack} | {known} | {finding.summary} | {verdict} | {finding.seconds:.2g} |")
    lines += [f"| {attack} | {KNOWLEDGE[attack]} | not run: {reason} | | |" for attack, reason in refused.items()]
    lines += ["", CAVEAT, SYMMETRY]
    for finding in findings:
        names = list(dict.fromkeys(name for row in finding.rows for name in row))
        rows = [[cell(row.get(name)) for name in names] for row in finding.rows]
        lines += ["", f"## {finding.attack}", "", *markdown_table(names, rows)]
        if finding.attack in drawn:
            lines += ["", f"![{finding.summary}]({drawn[finding.attack]})"]
    if compared:
        lines += ["", "## Methods by attacks", "", *compared]
    return "\n".join([*lines, ""])


def _picture_rows(finding: Finding) -> list[tuple[str, dict[str, Any]]]:
    images = zip(*finding.pictures.values(), strict=False)
    return [("", dict(zip(finding.pictures, row, strict=True))) for row in images]


def _most_detailed(finding: Finding) -> dict[str, Any]:
    # Of a clear sky nobody sees whether it was recovered.
    detail = next(reversed(finding.pictures.values())).std(axis=(1, 2, 3))
    return {title: images[detail.argmax()] for title, images in finding.pictures.items()}


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity and no NaN."""
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}
