"""Report of measurements, as benchmark.json and as tables in benchmark.md."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppvit_jax.files import markdown_table, write_json, write_text

DURATIONS = ("seconds", "quartiles", "range")
_UNITS = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"))


@dataclasses.dataclass(frozen=True)
class Table:
    """Measurements of one part of a section.

    Attributes:
      title: the heading.
      note: the method, and the meaning of the numbers.
      columns: heading of each column, by the field of a row.
      rows: fields by name, also those without a column: numbers, pairs of numbers ("low to high") or text. The fields
        in DURATIONS are in seconds.
    """

    title: str
    note: str
    columns: dict[str, str]
    rows: list[dict[str, Any]]

    def lines(self) -> list[str]:
        """Returns the table in Markdown, without empty columns."""
        columns = {
            field: title
            for field, title in self.columns.items()
            if any(row.get(field) is not None for row in self.rows)
        }
        cells = [[_cell(row.get(field), field in DURATIONS) for field in columns] for row in self.rows]
        return [f"## {self.title}", "", self.note, "", *markdown_table(list(columns.values()), cells), ""]


def write(output: Path, command: str, machine: Mapping[str, object], sections: dict[str, list[Table]]) -> None:
    """Writes benchmark.json and benchmark.md, each whole or not at all.

    Args:
      output: a folder that exists.
      command: the command line that was run.
      machine: see `describe_machine`.
      sections: the tables of each section that has begun, by name.
    """
    content = {
        "command": command,
        "machine": machine,
        "sections": {name: [dataclasses.asdict(table) for table in tables] for name, tables in sections.items()},
    }
    write_json(output / "benchmark.json", content)
    where = ", ".join(f"{name} {value}" for name, value in machine.items())
    lines = ["# Benchmark", "", f"`{command}`", "", f"{where}.", ""]
    write_text(
        output / "benchmark.md", "\n".join(lines + [line for tables in sections.values() for line in body(tables)])
    )


def body(tables: list[Table]) -> list[str]:
    """Returns the lines of a section."""
    return [line for table in tables for line in table.lines()]


def _cell(value: Any, is_duration: bool = False) -> str:
    if value is None:
        return ""
    if is_duration:
        largest = value[1] if isinstance(value, list | tuple) else value
        size, unit = next((one for one in _UNITS if largest >= one[0]), _UNITS[-1])
        scaled = tuple(part / size for part in value) if isinstance(value, list | tuple) else value / size
        return f"{_cell(scaled)} {unit}"
    if isinstance(value, list | tuple):
        return " to ".join(map(_cell, value))
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    if 0 < abs(value) < 0.0005:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
