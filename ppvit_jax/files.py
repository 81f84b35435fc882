"""Paths that users name, and the writing of result files, each whole or not at all."""

import contextlib
import errno
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ppvit_jax.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# pathlib makes "gs:/bucket" of "gs://bucket", which is recognized for the usual schemes alone.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://|(abfss?|azb?|file|gcs|gs|hdfs|hf|https?|s3a?|ssh|wasbs?):/")
# Parts of the messages of PyTorch where it cannot write.
_PYTORCH_WRITES = ("PytorchStreamWriter", "inline_container")
# PyTorch tells no reason: with less space than this, the disk is full.
_LITTLE_SPACE = 2**20
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def local_path(text: str | os.PathLike[str]) -> Path:
    """Returns the path that a user names, with the home folder in place of a leading ~.

    Raises:
      UserError: the text is a URL such as gs://bucket/folder, or the home folder is unknown.
    """
    refuse_scheme(os.fspath(text))
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(
            f"the home folder in {text} is unknown: set HOME, write the path without ~, or write ./{text} for a name "
            "that starts with ~"
        ) from None


def refuse_scheme(text: str) -> None:
    """Refuses a URL in place of a path.

    Raises:
      UserError: the text starts with a scheme such as gs:// or file://.
    """
    if (scheme := _SCHEME.match(text)) is None:
        return
    name = scheme[1] or scheme[2]
    if name.lower() == "file":
        raise UserError(f"{text} is a URL: give the path alone, without file://")
    raise UserError(
        f"{text} is not a path of this machine, and {name}:// is not supported: mount it as a folder, or copy it here, "
        "and give the path of that"
    )


@contextlib.contextmanager
def written_aside(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """Yields a temporary path to write to, and renames it to `path` at the end, so that `path` is complete or absent.

    Args:
      path: the file or folder to create; an existing file is replaced.
      folder: folder of the temporary path, on the same disk. The default is the folder of `path`.

    Yields:
      A hidden path that no other process uses. After an error it is removed, and `path` stays as it was.

    Raises:
      UserError: `path` is a folder.
      OSError: the disk cannot be written; the error names `path`.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: choose another name")
    # Short, because a file system that takes the name of `path` need not take a longer one.
    aside = (folder or path.parent) / f".{uuid.uuid4().hex[:12]}.tmp"
    try:
        yield aside
        aside.replace(path)
    except OSError as error:
        if error.filename == str(aside) or (error.filename is None and error.errno in _DISK_IS_FULL):
            error.filename = str(path)
        raise
    except Exception as error:
        if (fault := _disk_fault(error, path)) is None:
            raise
        raise fault from None
    finally:
        if aside.is_dir():
            shutil.rmtree(aside)
        else:
            aside.unlink(missing_ok=True)


def _disk_fault(error: Exception, path: Path) -> Exception | None:
    """Returns the OSError in place of which safetensors or PyTorch raised another error as it wrote `path`."""
    text = " ".join(str(error).split())
    if type(error).__name__ != "SafetensorError" and not any(name in text for name in _PYTORCH_WRITES):
        return None
    if number := re.search(r"\(os error (\d+)\)", text):
        return OSError(int(number[1]), os.strerror(int(number[1])), str(path))
    if shutil.disk_usage(path.parent).free < _LITTLE_SPACE:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    return UserError(f"cannot write {path} ({text}): check its disk")


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
