"""Curves of a run: loss, accuracy, learning rate and speed, from the lines of metrics.jsonl."""

from collections.abc import Sequence
from typing import Any

from ppvit_jax.training.report.charts import Format, Series, line_chart, number, percent
from ppvit_jax.training.report.markup import Html, details, element, section, table
from ppvit_jax.training.report.run_files import RunFiles

# Images that are evaluated after an epoch: their names and colors, by the first word of their fields in its line.
_EVALUATED = {"test": ("test", "second"), "val": ("validation", "third")}
_METRICS = {"loss": ("Loss", number), "accuracy": ("Accuracy", percent)}


def draw(run: RunFiles) -> Html:
    """Returns the section of curves."""
    steps, epochs = ([line for line in run.history if line["kind"] == kind] for kind in ("step", "epoch"))
    figures = []
    for field, (title, format_y) in _METRICS.items():
        series = [Series("training", "first", _points(steps or epochs, f"train_{field}"))]
        series += [
            Series(name, color, _points(epochs, f"{prefix}_{field}"), dots=True)
            for prefix, (name, color) in _EVALUATED.items()
        ]
        figures += _chart(title, series, format_y)
    figures += _chart("Learning rate", [Series("learning rate", "first", _points(steps, "learning_rate"))], number)
    speed = _points(steps, "images_per_second") or _points(epochs, "images_per_second")
    figures += _chart("Images per second", [Series("images per second", "first", speed)], number)
    note = "Training values are means since the start of the epoch; the others are measured after each epoch."
    return section(
        "Curves",
        element("p", note, class_="note"),
        element("div", *figures, class_="figures"),
        details("Values of every epoch", _table(epochs)),
        id_="curves",
    )


def _points(lines: Sequence[Any], field: str) -> list[tuple[float, float]]:
    return [(line["epoch"], line[field]) for line in lines if line.get(field) is not None]


def _chart(title: str, series: Sequence[Series], format_y: Format) -> list[Html]:
    """Returns the chart in a list, which is empty if no line has a point."""
    series = [line for line in series if line.points]
    return [line_chart(title, series, x_title="epoch", format_y=format_y)] if series else []


def _table(epochs: Sequence[Any]) -> Html:
    fields = [
        (f"{name}_{field}", f"{title} {field}", format_y)
        for name, title in (("train", "Training"), ("val", "Validation"), ("test", "Test"))
        for field, (_, format_y) in _METRICS.items()
        if any(f"{name}_{field}" in line for line in epochs)
    ]
    rows = [
        [f"{line['epoch']:g}", *("" if line.get(name) is None else show(line[name]) for name, _, show in fields)]
        for line in epochs
    ]
    return table("Losses and accuracies after every epoch", ["Epoch", *(title for _, title, _ in fields)], rows)
