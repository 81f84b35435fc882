"""Results by class: confusion matrix, classes with the lowest accuracy, and the most frequent mistakes."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ppvit_jax.training.evaluation.files import Evaluation
from ppvit_jax.training.report.charts import column_chart, figure
from ppvit_jax.training.report.markup import Html, element, escape, section, table
from ppvit_jax.training.report.run_files import RunFiles

# A larger matrix is drawn as a picture, because its numbers would not be legible.
_MOST_CELLS = 20
# A longer name is cut.
_MOST_LETTERS = 60
_WORST = 10
_MISTAKES = 3
# Colors of right and wrong predictions in the picture; the opacity of a pixel is the share of its row.
_RIGHT, _WRONG = (42, 120, 214), (220, 88, 42)
# Measures of a class, with their titles.
_MEASURES = {"accuracy": "Accuracy", "average_precision": "Average precision"}
# Measures of all images, with their titles and formats.
_ALL = {
    "loss": ("Loss", "{:.4f}"),
    "accuracy": ("Accuracy", "{:.2%}"),
    "label_accuracy": ("Accuracy of single labels", "{:.2%}"),
    "top5_accuracy": ("Top-5 accuracy", "{:.2%}"),
    "macro_accuracy": ("Mean accuracy of the classes", "{:.2%}"),
    "mean_average_precision": ("Mean average precision", "{:.4f}"),
    "roc_auc": ("ROC AUC", "{:.4f}"),
    "calibration_error": ("Calibration error", "{:.2%}"),
}
# The opacity is this power of the share, so that a share of one image in a hundred is still visible.
_VISIBLE = 0.5


def draw(run: RunFiles) -> Html:
    """Returns the section of classes, empty if the run has no evaluation."""
    if run.evaluation is None or not run.evaluation["examples"]:
        return Html()
    rows, counts = [row | {"name": _shorten(row["name"])} for row in run.evaluation["classes"]], run.confusion
    names = [row["name"] for row in rows]
    parts = [_worst(rows, counts)] if rows else []
    if counts is not None:
        matrix = _table if len(names) <= _MOST_CELLS else _picture
        parts = [matrix(names, counts), *parts, _frequent_mistakes(names, counts)]
    if len(rows) > _WORST:
        parts.append(element("div", _distribution(rows), class_="figures"))
    return section("Evaluation", _measures(run.evaluation), *parts, id_="evaluation")


def _shorten(name: str) -> str:
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"


def _measures(evaluation: Evaluation) -> Html:
    values = evaluation["metrics"]
    rows = [[title, form.format(values[name])] for name, (title, form) in _ALL.items() if values.get(name) is not None]
    images = f"{evaluation['examples']:,} {evaluation['origin']['split']} images".replace("  ", " ")
    predicted = f"{evaluation['predicted_classes']:,} of {len(evaluation['classes']):,}"
    return table(f"Measures of {images}", ["Measure", "Value"], [*rows, ["Classes that are predicted", predicted]])


def shares(counts: np.ndarray) -> np.ndarray:
    """Returns the counts of each row as shares of the row's sum, float [classes, classes]; 0 for an empty row."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _table(names: Sequence[str], counts: np.ndarray) -> Html:
    head = element(
        "tr",
        element("th", "True \\ predicted", scope="col"),
        *(element("th", element("span", name), scope="col") for name in names),
    )
    rows = []
    for index, (name, row, row_shares) in enumerate(zip(names, counts, shares(counts), strict=True)):
        cells = [
            element(
                "td",
                count or element("span", "0", class_="zero"),
                class_="right" if column == index else "wrong" if count else None,
                style=f"--share:{share**_VISIBLE:.3f}" if count else None,
                title=f"{share:.1%} of {name} predicted as {names[column]}" if count else None,
            )
            for column, (count, share) in enumerate(zip(row, row_shares, strict=True))
        ]
        rows.append(element("tr", element("th", name, scope="row"), *cells))
    caption = "Confusion matrix: number of test images by their class (row) and the predicted class (column)"
    content = element(
        "table", element("caption", caption), element("thead", head), element("tbody", *rows), class_="matrix"
    )
    return element("div", content, class_="scroll", role="region", aria_label="Confusion matrix", tabindex=0)


def _picture(names: Sequence[str], counts: np.ndarray) -> Html:
    count = len(names)
    pixels = np.empty((count, count, 4), np.uint8)
    pixels[..., :3] = _WRONG
    pixels[np.arange(count), np.arange(count), :3] = _RIGHT
    pixels[..., 3] = np.round(255 * shares(counts) ** _VISIBLE)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    right = int(np.trace(counts))
    text = (
        f"Confusion matrix of {count} classes: {right:,} of {counts.sum():,} test images are on its "
        "diagonal; the tables of worst classes and frequent mistakes follow."
    )
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    image = element("img", src=source, alt=text, width=count, height=count, class_="heat")
    note = (
        f"Rows are the true classes 0 to {count - 1} from the top, columns the predicted ones from the left. "
        "Blue: right. Orange: wrong. The color is stronger for a larger share of the row."
    )
    return figure("Confusion matrix", image, element("p", note, class_="note"))


def _worst(rows: Sequence[dict[str, Any]], counts: np.ndarray | None) -> Html:
    """Returns the table of the classes with the lowest accuracy, or average precision for several labels per image."""
    measure, title = _measure(rows)
    tested = [index for index, row in enumerate(rows) if row[measure] is not None]
    worst = sorted(tested, key=lambda index: (rows[index][measure], -rows[index]["examples"], index))[:_WORST]
    lines = [
        [rows[index]["name"], f"{rows[index]['examples']:,}", _bar(rows[index][measure])]
        + ([] if counts is None else [_mistakes(rows, counts[index], index)])
        for index in worst
    ]
    head = ["Class", "Images", title, *([] if counts is None else ["Mistaken for"])]
    return table(f"Classes with the lowest {title.lower()} ({len(worst)} of {len(rows)})", head, lines)


def _measure(rows: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """Returns the field that the classes have, and its title."""
    return next(pair for pair in _MEASURES.items() if pair[0] in rows[0])


def _distribution(rows: Sequence[dict[str, Any]]) -> Html:
    """Returns a chart with a column for each class, from the highest accuracy to the lowest."""
    measure, title = _measure(rows)
    tested = sorted(((row[measure], row["name"]) for row in rows if row[measure] is not None), reverse=True)
    count = len(tested)
    columns = [
        (index / count, (index + 1) / count, share, f"{name}: {share:.1%}")
        for index, (share, name) in enumerate(tested)
    ]
    median = float(np.median([share for share, _ in tested])) if tested else 0.0
    description = f"{count} classes; the median is {median:.1%}"
    return column_chart(
        f"{title} of all classes (median {median:.1%})",
        columns,
        x_title="share of the classes",
        y_title=title.lower(),
        description=description,
    )


def _bar(share: float) -> Html:
    return element("span", element("span", f"{share:.1%}"), class_="bar", style=f"--share:{share:.3f}")


def _mistakes(rows: Sequence[dict[str, Any]], predicted: np.ndarray, index: int) -> Html:
    """Returns the classes that a class is most often mistaken for, with the numbers of images."""
    wrong = predicted.copy()
    wrong[index] = 0
    order = [column for column in np.argsort(-wrong, kind="stable")[:_MISTAKES] if wrong[column]]
    texts = [element("bdi", rows[column]["name"]) + f" ({wrong[column]:,})" for column in order]
    return Html(", ".join(texts)) if texts else escape("none")


def _frequent_mistakes(names: Sequence[str], counts: np.ndarray) -> Html:
    """Returns the table of the most frequent mistakes of all classes."""
    wrong = counts - np.diag(np.diagonal(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_WORST]
    pairs = [divmod(int(place), len(wrong)) for place in order if wrong.flat[place]]
    rows = [
        [names[true], names[predicted], f"{wrong[true, predicted]:,}", f"{shares(counts)[true, predicted]:.1%}"]
        for true, predicted in pairs
    ]
    head = ["True class", "Predicted class", "Images", "Share of the class"]
    return table("Most frequent mistakes", head, rows) if rows else element("p", "The model makes no mistake.")
