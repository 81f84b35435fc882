"""The audit's tables, and how numbers stand in their cells."""

import math
from collections.abc import Iterable, Sequence
from typing import Any


def text(value: Any) -> str:
    """A cell: whole numbers whole, others with three decimals, and small ones with two digits."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.2g}" if 0 < abs(value) < 0.001 else f"{value:.3f}"
    return f"{value:,.0f}" if isinstance(value, float | int) and math.isfinite(value) else str(value)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(cells)} |" for cells in rows)]
