"""Results by class: confusion matrix, classes with the lowest accuracy, and the most frequent mistakes."""

import base64
import io

import numpy as np
from PIL import Image

from ppvit_jax.training.report.charts import figure
from ppvit_jax.training.report.markup import Html, element, escape, join, section, table
from ppvit_jax.training.report.run_files import Confusion, RunFiles

# A larger matrix is drawn as a picture, because its numbers would not be legible.
_MOST_CELLS = 20
_WORST = 10
_MISTAKES = 3
# Colors of right and wrong predictions in the picture; the opacity of a pixel is the share of its row.
_RIGHT, _WRONG = (42, 120, 214), (220, 88, 42)
# A share of one image in a hundred is still visible.
_VISIBLE = 0.5


def draw(run: RunFiles) -> Html:
    """Returns the section of classes, empty if the run has no confusion matrix."""
    confusion = run.confusion
    if confusion is None or not confusion.counts.any():
        return Html()
    matrix = _table(confusion) if len(confusion.class_names) <= _MOST_CELLS else _picture(confusion)
    return section("Classes", matrix, _worst(confusion), _pairs(confusion), id_="classes")


def shares(counts: np.ndarray) -> np.ndarray:
    """Returns the counts of each row as shares of the row's sum, float [classes, classes]; 0 for an empty row."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _table(confusion: Confusion) -> Html:
    names = confusion.class_names
    head = element(
        "tr",
        element("th", "True \\ predicted", scope="col"),
        *(element("th", element("span", name), scope="col") for name in names),
    )
    rows = []
    for index, (name, counts, row) in enumerate(zip(names, confusion.counts, shares(confusion.counts), strict=True)):
        cells = [
            element(
                "td",
                count or element("span", "0", class_="zero"),
                class_="right" if column == index else "wrong" if count else None,
                style=f"--share:{share**_VISIBLE:.3f}" if count else None,
                title=f"{share:.1%} of {name} predicted as {names[column]}" if count else None,
            )
            for column, (count, share) in enumerate(zip(counts, row, strict=True))
        ]
        rows.append(element("tr", element("th", name, scope="row"), *cells))
    caption = "Confusion matrix: number of test images by their class (row) and the predicted class (column)"
    content = element(
        "table", element("caption", caption), element("thead", head), element("tbody", *rows), class_="matrix"
    )
    return element("div", content, class_="scroll", role="region", aria_label="Confusion matrix", tabindex=0)


def _picture(confusion: Confusion) -> Html:
    count = len(confusion.class_names)
    pixels = np.empty((count, count, 4), np.uint8)
    pixels[..., :3] = _WRONG
    pixels[np.arange(count), np.arange(count), :3] = _RIGHT
    pixels[..., 3] = np.round(255 * shares(confusion.counts) ** _VISIBLE)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    right = int(np.trace(confusion.counts))
    text = (
        f"Confusion matrix of {count} classes: {right:,} of {confusion.counts.sum():,} test images are on its "
        "diagonal; the tables of worst classes and frequent mistakes follow."
    )
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    image = element("img", src=source, alt=text, width=count, height=count, class_="heat")
    note = (
        f"Rows are the true classes 0 to {count - 1} from the top, columns the predicted ones from the left. "
        "Blue: right. Orange: wrong. The color is stronger for a larger share of the row."
    )
    return figure("Confusion matrix", image, element("p", note, class_="note"))


def _worst(confusion: Confusion) -> Html:
    counts, totals = confusion.counts, confusion.counts.sum(axis=1)
    right = np.diagonal(counts)
    tested = np.flatnonzero(totals)
    order = sorted(tested, key=lambda index: (right[index] / totals[index], -totals[index], index))[:_WORST]
    rows = [
        [
            confusion.class_names[index],
            f"{totals[index]:,}",
            _bar(right[index] / totals[index]),
            _mistakes(confusion, int(index)),
        ]
        for index in order
    ]
    title = f"Classes with the lowest accuracy ({len(order)} of {len(tested)})"
    return table(title, ["Class", "Images", "Accuracy", "Mistaken for"], rows)


def _bar(share: float) -> Html:
    return element("span", element("span", f"{share:.1%}"), class_="bar", style=f"--share:{share:.3f}")


def _mistakes(confusion: Confusion, index: int) -> Html:
    """Returns the classes that a class is most often mistaken for, with the numbers of images."""
    wrong = confusion.counts[index].copy()
    wrong[index] = 0
    order = [column for column in np.argsort(-wrong, kind="stable")[:_MISTAKES] if wrong[column]]
    texts = [join([confusion.class_names[column], f" ({wrong[column]:,})"]) for column in order]
    return Html(", ".join(texts)) if texts else escape("none")


def _pairs(confusion: Confusion) -> Html:
    """Returns the table of the most frequent mistakes of all classes."""
    wrong = confusion.counts - np.diag(np.diagonal(confusion.counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_WORST]
    pairs = [divmod(int(place), len(wrong)) for place in order if wrong.flat[place]]
    totals = confusion.counts.sum(axis=1)
    rows = [
        [
            confusion.class_names[true],
            confusion.class_names[predicted],
            f"{wrong[true, predicted]:,}",
            f"{wrong[true, predicted] / totals[true]:.1%}",
        ]
        for true, predicted in pairs
    ]
    head = ["True class", "Predicted class", "Images", "Share of the class"]
    return table("Most frequent mistakes", head, rows) if rows else element("p", "The model makes no mistake.")
