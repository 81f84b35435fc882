"""Results of a run: the lines of metrics.jsonl and the content of result.json, and how to read them."""

import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from ppvit_jax.errors import UserError
from ppvit_jax.files import null_if_not_finite

# The fields of every version's result.json that this program reads again.
_REQUIRED = {"dataset", "epochs", "train_examples", "test_loss", "test_accuracy", "test_examples", "best_test_accuracy"}


class MetricsLine(TypedDict):
    """A line of metrics.jsonl, with means over the current epoch; accuracies are from 0 to 1.

    Lines of kind "step" have neither `test_...` fields nor `predicted_classes`, and lines of kind "epoch" have no
    `learning_rate`. With validation images, lines of kind "epoch" have `val_...` fields and no `test_...` fields.
    """

    kind: str
    step: int
    epoch: float
    train_loss: float
    train_accuracy: float
    learning_rate: float
    images_per_second: float | None
    test_loss: float
    test_accuracy: float
    test_examples: int
    predicted_classes: int
    val_loss: NotRequired[float]
    val_accuracy: NotRequired[float]
    val_examples: NotRequired[int]


class Result(TypedDict):
    """Content of result.json: losses and accuracies (from 0 to 1) of the last epoch, and settings of the run.

    With validation images, the test images are evaluated once, with the weights that are handed over.

    Only a run with config.report has time and memory. `seconds` is the time of training, evaluation, saving and
    compilation, in all processes that continued the run. `peak_memory_bytes` is the most memory in use at once:
    `peak_memory_of` is "device" for the fullest accelerator, and "process" for this program on a CPU.
    """

    dataset: str
    model: str
    checkpoint: str
    image_size: int
    encryption: str
    adapt: bool
    seed: int
    steps: int
    epochs: int
    train_examples: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    test_examples: int
    best_test_accuracy: float
    images_per_second: float | None
    key_fingerprint: str | None
    device: str
    versions: dict[str, str]
    warnings: list[str]
    # All measures by part, "validation" and "test"; only with validation images or several labels per image.
    measures: NotRequired[dict[str, dict[str, float]]]
    # With `config.best_by`: its value, and the epoch whose weights are in checkpoint.npz.
    best_by: NotRequired[str]
    best_value: NotRequired[float]
    best_epoch: NotRequired[int]
    # With `config.patience`.
    stopped_early: NotRequired[bool]
    seconds: NotRequired[float]
    peak_memory_bytes: NotRequired[int]
    peak_memory_of: NotRequired[str]


def json_line(values: dict[str, Any]) -> str:
    """Returns a line of JSON; numbers that are not finite, which JSON lacks, become null."""
    return json.dumps(null_if_not_finite(values), allow_nan=False) + "\n"


def read_result(workdir: Path) -> Result | None:
    """Returns the content of result.json, or None if there is no such file.

    Raises:
      UserError: the file is damaged, another program's, or that of a run whose values are not finite.
    """
    file = workdir / "result.json"
    if not file.exists():
        return None

    def refuse_constant(constant: str) -> None:
        raise UserError(
            f"{file} has a value that is not finite ({constant}), because the training diverged: start again in a new "
            "workdir, with a lower config.optimizer.learning_rate"
        )

    try:
        result = json.loads(_read_text(file), parse_constant=refuse_constant)
    except UserError:
        raise
    except ValueError:
        result = None
    if not isinstance(result, dict) or not result.keys() >= _REQUIRED:
        raise UserError(
            f"{file} is damaged, or not the result of a run: remove it, then run the same command again to continue, "
            "or use another workdir"
        )
    return result  # pyright: ignore[reportReturnType]


def read_history(workdir: Path, kind: str | None = None) -> list[MetricsLine]:
    """Returns the lines of metrics.jsonl of one kind or of all; skips a last line that an interruption cut short.

    Raises:
      UserError: another line is damaged, or the file is another program's.
    """
    file = workdir / "metrics.jsonl"
    if not file.exists():
        return []
    texts = _read_text(file).splitlines()
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
            if not (isinstance(line["step"], int) and isinstance(line["kind"], str)):
                raise TypeError("the step is no number")
        except (ValueError, KeyError, TypeError):
            # After an interruption only the last line may be incomplete.
            if number == len(texts):
                break
            raise UserError(
                f"line {number} of {file} is damaged, or not of a run: put its line back, or use another workdir"
            ) from None
        lines.append(line)
    return [line for line in lines if kind in (None, line["kind"])]


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
