"""Fields of a configuration that choose the task, the best weights, and an early end."""

from typing import Any

from ppvit_jax.data.validation import parse_fraction
from ppvit_jax.errors import UserError

# Measures of each task by which weights can be chosen; True if more is better.
MEASURES = {
    "single_label": {
        "loss": False,
        "accuracy": True,
        "top5_accuracy": True,
        "macro_accuracy": True,
        "calibration_error": False,
        "roc_auc": True,
    },
    "multi_label": {"loss": False, "accuracy": True, "label_accuracy": True, "mean_average_precision": True},
}
PREFIX = "val_"


def check_evaluation(config: Any) -> None:
    """Checks `task`, `data.validation`, `best_by` and `patience`.

    Raises:
      UserError: one line about the first value that is wrong.
    """
    task, best_by, validation = config.task, config.best_by, config.data.validation
    if task not in MEASURES:
        raise UserError(f"config.task is {task!r}: use one of {', '.join(map(repr, MEASURES))}")
    parse_fraction(validation)
    if task == "multi_label":
        settings = {"label_smoothing": config.label_smoothing, "class_weights": config.class_weights}
        for name, value in {**settings, "data.sampling": config.data.sampling}.items():
            if value not in (0, "none", "uniform"):
                raise UserError(
                    f"config.{name} is {value!r}, which needs one label per image, but config.task is 'multi_label': "
                    "leave it out"
                )
    if config.patience and not best_by:
        raise UserError(
            f"config.patience is {config.patience}, but config.best_by is empty: name the measure to wait for, such as "
            "val_accuracy"
        )
    if not best_by:
        return
    choices = ", ".join(f"{PREFIX}{name}" for name in MEASURES[task])
    if best_by.startswith("test_"):
        raise UserError(
            f"config.best_by is {best_by!r}, but weights that the test images choose make the test accuracy too high: "
            f"set config.data.validation, and use one of {choices}"
        )
    if best_by.removeprefix(PREFIX) not in MEASURES[task] or not best_by.startswith(PREFIX):
        raise UserError(f"config.best_by is {best_by!r}: use one of {choices}")
    if not validation:
        raise UserError(
            f"config.best_by is {best_by!r}, but there are no validation images: set config.data.validation to a "
            "split, or to a fraction of the training images such as 0.1"
        )


def is_better(best_by: str, task: str, value: float, than: float) -> bool:
    """Returns True if a value of the measure `best_by` is better than another; equal values are not."""
    return value > than if MEASURES[task][best_by.removeprefix(PREFIX)] else value < than
