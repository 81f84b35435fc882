"""Rows of the table of `python -m benchmarks quick`, and the limits that a measurement has to keep."""

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.timing import summarize

COLUMNS = {
    "measure": "Measure",
    "value": "Value",
    "unit": "Unit",
    "quartiles_of_value": "quartiles",
    "reference": "Compared with",
    "ratio": "Ratio",
    "ratio_quartiles": "quartiles",
    "limit": "Limit",
    "verdict": "Verdict",
}
KEPT, MISSED = "kept", "MISSED"


@dataclasses.dataclass(frozen=True)
class Limit:
    """Limit that a measurement has to keep.

    Attributes:
      field: the field of the row that is limited, "value" or "ratio".
      most: the largest allowed number.
      text: words for the table.
      is_promise: True if the documentation promises it on every device, so that the program is wrong without it.
    """

    field: str
    most: float
    text: str
    is_promise: bool = False


@dataclasses.dataclass(frozen=True)
class Part:
    """Part of the benchmark that is measured as a whole, or left out.

    Attributes:
      title: words for the progress line.
      measures: names of its rows, in order.
      run: measures the rows one after another; each has "measure", one of `measures`, and more fields of COLUMNS.
      estimate: returns the seconds that it will take, by what is known when it is called.
    """

    title: str
    measures: tuple[str, ...]
    run: Callable[[], Iterator[dict[str, Any]]]
    estimate: Callable[[], float]


def compare(reference: str, ours: float, other: float, unit: str) -> dict[str, Any]:
    """Returns the fields of a row that is compared with another measurement in the same unit.

    Args:
      reference: the thing that was measured for comparison.
      ours: the value of the row.
      other: the value of the reference.
      unit: the unit of both.
    """
    text = f"{other:,.0f}" if other >= 100 else f"{other:.3g}"
    return {"reference": f"{reference}, {text} {unit}".rstrip(), "reference_value": other, "ratio": ours / other}


def compare_steps(seconds: dict[str, list[float]], name: str, other: str) -> dict[str, Any]:
    """Returns the fields of a step's time, compared with another step if that was measured."""
    summary = summarize(seconds, other if other in seconds else name)[name]
    value, low, high = (1e3 * number for number in (summary["seconds"], *summary["quartiles"]))
    fields = {"value": value, "unit": "ms", "quartiles_of_value": (low, high)}
    if other not in seconds:
        return fields
    compared = compare(other, value, 1e3 * statistics.median(seconds[other]), "ms")
    return {**fields, **compared, "ratio_quartiles": summary["ratio_quartiles"]}


def judge(row: Mapping[str, Any], *limits: Limit) -> dict[str, Any]:
    """Returns a row with its limits and the verdict on them.

    Args:
      row: a measured row.
      limits: the limits that apply on this device. A limit of a field that the row lacks is not judged.

    Returns:
      The row with "limit" and "verdict" if it has limits, and with "broken" if it misses a promise.
    """
    if not limits:
        return dict(row)
    judged = [limit for limit in limits if row.get(limit.field) is not None]
    missed = [limit for limit in judged if not row[limit.field] <= limit.most]
    verdict = MISSED if missed else KEPT if len(judged) == len(limits) else "not compared"
    broken = {"broken": True} if any(limit.is_promise for limit in missed) else {}
    return {**row, "limit": "; ".join(limit.text for limit in limits), "verdict": verdict, **broken}


def first_words(error: Exception) -> str:
    """Returns the beginning of an error's message in one line, or else the error's name."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def unmeasured(part: Part, done: int, reason: str) -> list[dict[str, Any]]:
    """Returns the rows of a part from number `done` on, with the reason for which they were not measured."""
    return [{"measure": name, "verdict": reason} for name in part.measures[done:]]
