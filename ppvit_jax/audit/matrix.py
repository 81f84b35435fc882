"""Tables of methods by attacks, in Markdown."""

import statistics
from collections.abc import Sequence

from ppvit_jax.audit import attacks
from ppvit_jax.audit.methods import Comparison, Record
from ppvit_jax.files import cell, markdown_table


def tabulate(comparison: Comparison) -> list[str]:
    """Returns the matrix as lines of Markdown: for each method and attack, the column's measure over the keys."""
    tried = {record.attack for record in comparison.records} | {name for _, name in comparison.refused}
    columns = {attack.name: attack.column for attack in attacks.ATTACKS if attack.name in tried}
    columns = dict(sorted(columns.items(), key=lambda item: item[1].place))
    notes: dict[str, int] = {}
    body = []
    for spec in comparison.specs:
        cells = [f"`{spec}`"]
        for name, column in columns.items():
            values: dict[int, list[float]] = {}
            for record in comparison.records:
                if (record.method, record.attack) == (spec, name):
                    values.setdefault(record.repetition, []).extend(_measures([record], column.measure))
            selected = [own[-1] if column.row == "last" else min(own) for own in values.values() if own]
            if selected:
                cells.append(spread(selected))
            else:
                note = notes.setdefault(comparison.refused.get((spec, name), "not run"), len(notes) + 1)
                cells.append(f"- ({note})")
        body.append(cells)
    lines = markdown_table(["method", *(column.heading for column in columns.values())], body)
    return [*lines, "", *(f"{number}. {reason}" for reason, number in notes.items())]


def summarize(records: Sequence[Record]) -> list[str]:
    """Returns a table for each attack as lines of Markdown: median and range of every measure over the keys.

    If every key encrypted several draws of images, a second table has a row for each draw.
    """
    lines: list[str] = []
    for name in dict.fromkeys(record.attack for record in records):
        attack = attacks.named(name)
        own = [record for record in records if record.attack == name]
        names = list(dict.fromkeys(measure for record in own for measure in record.row))
        labels = [label for label in (attack.label,) if label in names]
        measures = [measure for measure in names if measure not in labels]
        lines += ["", f"## {name}", "", f"The attacker has {attack.attacker_has}.", ""]
        drawn = any(record.draw is not None for record in own)
        for by_draw in (False, True) if drawn else (False,):
            groups: dict[tuple[str, ...], list[Record]] = {}
            for record in own:
                group = f"`{record.method}`", *(cell(record.row.get(label)) for label in labels)
                groups.setdefault((*group, str(record.draw)) if by_draw else group, []).append(record)
            body = [
                [*group, str(len(members)), *(spread(_measures(members, measure)) for measure in measures)]
                for group, members in groups.items()
            ]
            attempts = "keys and draws" if drawn and not by_draw else "keys"
            table = markdown_table(["method", *labels, *(["draw"] if by_draw else []), attempts, *measures], body)
            lines += ["", *table] if by_draw else table
    return lines


def spread(values: Sequence[float]) -> str:
    """Returns the median as text, followed by the range if the values differ."""
    if not values:
        return ""
    low, high = cell(min(values)), cell(max(values))
    middle = cell(statistics.median(values))
    return middle if low == high else f"{middle} ({low} to {high})"


def _measures(records: Sequence[Record], name: str) -> list[float]:
    return [value for record in records if isinstance(value := record.row.get(name), int | float)]
