"""Files of an evaluation: evaluation.json, confusion.csv and, with matplotlib, confusion.png; docs/evaluation.md."""

import csv
import io
import json
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from ppvit_jax.errors import UserError, is_installed
from ppvit_jax.files import new_figure, write_bytes, write_figure, write_json
from ppvit_jax.training.evaluation.measures import Measured

JSON, CSV, PICTURE = "evaluation.json", "confusion.csv", "confusion.png"
VERSION = 1
# Larger matrices have no names along their axes, or no numbers in their cells.
_MAX_NAMES, _MAX_NUMBERS = 60, 12


class Origin(TypedDict):
    """Description of what was evaluated.

    Attributes:
      checkpoint: path of the model, or "checkpoint.npz" in a run's workdir.
      images: name of the data set, or path of the images.
      split: the images that were used, such as "test"; "" for a whole folder.
      encryption: encryption of the images, "none" for plain ones.
      key_fingerprint: fingerprint of their key; None for plain ones.
    """

    checkpoint: str
    images: str
    split: str
    encryption: str
    key_fingerprint: str | None


class Evaluation(TypedDict):
    """Content of evaluation.json.

    Attributes:
      version: version of this form, 1.
      task: "single_label" or "multi_label".
      origin: what was evaluated.
      examples: number of images.
      predicted_classes: number of classes that are predicted for at least one image.
      metrics: measures by name, None where undefined; see `ppvit_jax.training.evaluation.measures`.
      classes: for each class its "name", "examples", "predicted" (images predicted as it), and "accuracy" or, for
        several labels per image, "average_precision".
      calibration: for each of 15 bins its "examples", mean "confidence" and "accuracy"; empty for several labels.
      confusion: "confusion.csv"; None if no matrix was kept.
    """

    version: int
    task: str
    origin: Origin
    examples: int
    predicted_classes: int
    metrics: dict[str, float | None]
    classes: list[dict[str, Any]]
    calibration: list[dict[str, Any]]
    confusion: str | None


def write_evaluation(folder: Path, measured: Measured, class_names: tuple[str, ...], origin: Origin) -> list[str]:
    """Writes the files of an evaluation, evaluation.json last; existing ones are replaced.

    Args:
      folder: the folder.
      measured: the measures.
      class_names: the name of class i at index i.
      origin: what was evaluated.

    Returns:
      The names of the files.
    """
    names = []
    if measured.confusion is not None:
        write_bytes(folder / CSV, confusion_csv(measured.confusion, class_names))
        names.append(CSV)
        if is_installed("matplotlib"):
            _draw_confusion(folder / PICTURE, measured.confusion, class_names)
            names.append(PICTURE)
    content: Evaluation = {
        "version": VERSION,
        "task": measured.task,
        "origin": origin,
        "examples": measured.examples,
        "predicted_classes": measured.predicted_classes,
        "metrics": measured.values,
        "classes": [{"name": name, **row} for name, row in zip(class_names, measured.per_class, strict=True)],
        "calibration": list(measured.calibration),
        "confusion": None if measured.confusion is None else CSV,
    }
    write_json(folder / JSON, content)
    return [JSON, *names]


def read_evaluation(folder: Path) -> tuple[Evaluation, np.ndarray | None] | None:
    """Reads the files of an evaluation.

    Returns:
      The content of evaluation.json, and the confusion matrix, int64 [classes, classes], or None without one; None if
      the folder has no evaluation.json.

    Raises:
      UserError: a file is damaged or missing.
    """
    file = folder / JSON
    if not file.exists():
        return None
    try:
        content: Evaluation = json.loads(file.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise ValueError(f"it has version {content['version']}")
        if content["confusion"] is None:
            return content, None
        file = folder / CSV
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
        rows = list(csv.reader(io.StringIO(text, newline="")))[1:]
        matrix = np.array([[int(cell) for cell in row[1:]] for row in rows], np.int64)
        if matrix.shape != (len(content["classes"]),) * 2:
            raise ValueError(f"it has {len(rows)} rows")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"cannot read {file} ({reason}): remove it, and evaluate again") from None
    return content, matrix


def confusion_csv(confusion: np.ndarray, class_names: tuple[str, ...]) -> bytes:
    """Returns the confusion matrix as CSV: a row for each true class, a column for each predicted class."""
    content = io.BytesIO()
    text = io.TextIOWrapper(content, encoding="utf-8", errors="surrogateescape", newline="", write_through=True)
    rows = csv.writer(text)
    rows.writerow(["true class", *class_names])
    for name, counts in zip(class_names, confusion.tolist(), strict=True):
        rows.writerow([name, *counts])
    return content.getvalue()


def _draw_confusion(path: Path, confusion: np.ndarray, class_names: tuple[str, ...]) -> None:
    """Draws the share of each true class (row) that is predicted as each class (column)."""
    count = len(class_names)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = min(max(4.0, 0.3 * count + 2), 14.0)
    figure = new_figure(side + 1, side)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if count <= _MAX_NAMES:
        names = [_shorten(name) for name in class_names]
        axes.set_xticks(range(count), names, rotation=90, parse_math=False)
        axes.set_yticks(range(count), names, parse_math=False)
    if count <= _MAX_NUMBERS:
        for row, column in np.ndindex(count, count):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{confusion[row, column]:,}", ha="center", va="center", color=color, fontsize=7)
    write_figure(path, figure)


def _shorten(name: str) -> str:
    text = name.encode("utf-8", errors="replace").decode()
    return text if len(text) <= 24 else f"{text[:23]}…"
