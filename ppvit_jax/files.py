"""Writing of result files, each whole or not at all, and the Markdown tables in them."""

import contextlib
import json
import math
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextlib.contextmanager
def written_aside(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """Yields a temporary path to write to, and renames it to `path` at the end, so that `path` is complete or absent.

    Args:
      path: the file or folder to create; an existing file is replaced.
      folder: folder of the temporary path, on the same disk. The default is the folder of `path`.

    Yields:
      A hidden path that no other process uses. After an error it is removed, and `path` stays as it was.
    """
    aside = (folder or path.parent) / f".{path.name[:50]}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        yield aside
        aside.replace(path)
    finally:
        if aside.is_dir():
            shutil.rmtree(aside)
        else:
            aside.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes text as UTF-8, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Writes JSON, indented by two spaces, whole or not at all."""
    write_text(path, json.dumps(null_if_not_finite(content), indent=2, allow_nan=False) + "\n")


def new_figure(width: float, height: float) -> "Figure":
    """Returns an empty matplotlib figure of this size in inches; it needs no display."""
    # Takes half a second to import, which programs that draw nothing need not pay.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_figure(path: Path, figure: "Figure") -> None:
    """Writes a picture as PNG, whole or not at all."""
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=120, format="png")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table."""
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(cells)} |" for cells in rows)]


def cell(value: object) -> str:
    """Formats the value of a table cell.

    Whole numbers have no decimals, numbers below 0.001 have two significant digits, and all others have three decimals.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.2g}" if 0 < abs(value) < 0.001 else f"{value:.3f}"
    return f"{value:,.0f}" if isinstance(value, float | int) and math.isfinite(value) else str(value)


def null_if_not_finite(content: object) -> object:
    """Returns the content of a JSON file with None in place of NaN and infinity, which JSON lacks."""
    if isinstance(content, dict):
        return {name: null_if_not_finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [null_if_not_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
