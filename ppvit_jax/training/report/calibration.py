"""Calibration: the accuracy of the predictions against their confidence."""

from collections.abc import Sequence
from typing import Any

from ppvit_jax.training.report.charts import column_chart, percent
from ppvit_jax.training.report.markup import Html, details, element, section, table
from ppvit_jax.training.report.run_files import RunFiles


def draw(run: RunFiles) -> Html:
    """Returns the section of calibration, empty if the run has no evaluation of it."""
    if run.evaluation is None or not any(part["examples"] for part in run.evaluation["calibration"]):
        return Html()
    bins = run.evaluation["calibration"]
    error = run.evaluation["metrics"].get("calibration_error")
    described = "" if error is None else f"The calibration error is {error:.2%}. "
    text = (
        f"{described}Each column has the images whose prediction is that confident. Its height is the share that is "
        "right: on the dashed line, confidence and accuracy are equal; below it, the model is too sure of itself."
    )
    columns = [
        (index / len(bins), (index + 1) / len(bins), part["accuracy"], _describe(part))
        for index, part in enumerate(bins)
        if part["examples"]
    ]
    chart = column_chart(
        "Accuracy by confidence",
        columns,
        x_title="confidence",
        y_title="accuracy",
        description="; ".join(column[3] for column in columns),
        diagonal=True,
    )
    return section(
        "Calibration",
        element("p", text),
        element("div", chart, class_="figures"),
        details("Values of the columns", _table(bins)),
        id_="calibration",
    )


def _describe(part: dict[str, Any]) -> str:
    return (
        f"{part['examples']:,} images with confidence {percent(round(part['confidence'], 3))}: "
        f"accuracy {percent(round(part['accuracy'], 3))}"
    )


def _table(bins: Sequence[dict[str, Any]]) -> Html:
    rows = [
        [
            f"{index / len(bins):.1%} to {(index + 1) / len(bins):.1%}",
            f"{part['examples']:,}",
            f"{part['confidence']:.1%}",
            f"{part['accuracy']:.1%}",
        ]
        for index, part in enumerate(bins)
        if part["examples"]
    ]
    return table("Calibration", ["Confidence", "Images", "Mean confidence", "Accuracy"], rows)
