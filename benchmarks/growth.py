"""The section `growth`: time and memory by batch size, image size and number of images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.jax_step import TrainingStep, random_batch
from benchmarks.report import Table
from benchmarks.settings import Settings
from benchmarks.timing import host_work, jax_work, summarize, take_turns
from ppvit_jax import keys
from ppvit_jax.config import Config, default_config
from ppvit_jax.encryption import parse
from ppvit_jax.files import new_figure, write_figure

_MOST_IMAGES = 2048
_BLOCK_SIZE = 16
_STYLES = (("#0072B2", "o"), ("#D55E00", "^"), ("#009E73", "D"), ("#CC79A7", "v"))
_STEPS = {
    "line": "Training step",
    "batch_size": "Batch",
    "seconds": "Median",
    "quartiles": "quartiles",
    "images_per_second": "images/s",
    "program_mebibytes": "Program's memory (MiB)",
}
_ENCRYPTION = {
    "line": "Encryption",
    "images": "Images",
    "seconds": "Median",
    "quartiles": "quartiles",
    "images_per_second": "images/s",
}
_EXPONENTS = {"what": "Measure", "against": "Against", "line": "Line", "exponent": "Exponent"}


def run(settings: Settings) -> Iterator[list[Table]]:
    """Yields the section's tables as they grow, and writes growth.png at the end.

    Raises:
      UserError: the model is unknown, or a size does not fit it.
    """
    name = (settings.models or ("ViT-Ti/16",))[0]
    training = default_config()
    training.dtype = (settings.dtypes or ("float32",))[0]
    patch_size = settings.model_config(name).patch_size
    # The second size is 384 beside 224.
    sizes = (settings.image_size, round(settings.image_size * 12 / 7 / patch_size) * patch_size)
    note = (
        f"{name}, {training.dtype}, plain random images; {settings.repeats} turns of all batch sizes. The program's "
        "memory is XLA's estimate for the compiled step: arguments, results and temporary memory."
    )
    steps = Table("Growth of a training step", note, _STEPS, [])
    for size in sizes:
        steps.rows.extend(_steps(settings, name, training, size))
        yield [steps]
    note = (
        f"Block scrambling and pixel shuffling of uint8 images {settings.image_size}x{settings.image_size}x3, JAX on "
        f"the device and numpy; {settings.repeats} turns of all numbers of images."
    )
    encryption = Table("Growth of encryption", note, _ENCRYPTION, _encryptions(settings))
    yield [steps, encryption]
    note = (
        "The exponent is the slope of a straight line through the larger half of the sizes, on logarithmic axes: 1 is "
        "linear growth. An exponent below 1 shows a constant part, which matters less for larger sizes."
    )
    exponents = Table("Exponents", note, _EXPONENTS, _exponents(steps.rows, encryption.rows))
    draw(steps.rows, encryption.rows, f"{name}, {training.dtype}", settings.output / "growth.png")
    yield [steps, encryption, exponents]


def exponent(sizes: list[float], values: list[float]) -> float:
    """Returns the slope of a line through the larger half of the points, at least two, on logarithmic axes."""
    used = max(2, (len(sizes) + 1) // 2)
    return float(np.polyfit(np.log(sizes[-used:]), np.log(values[-used:]), 1)[0])


def draw(steps: list[dict[str, Any]], encryptions: list[dict[str, Any]], subtitle: str, path: Path) -> None:
    """Draws the time and memory of a step and the time of encryption.

    A dotted line through the last point of each curve shows linear growth.

    Args:
      steps: rows with "line", "batch_size", "seconds" and "program_mebibytes".
      encryptions: rows with "line", "images" and "seconds".
      subtitle: the model and the precision.
      path: the PNG to write.
    """
    figure = new_figure(13, 4.4)
    panels = (
        (steps, "batch_size", "seconds", "Training step: time", "Batch size (images)", "Seconds per step"),
        (steps, "batch_size", "program_mebibytes", "Training step: memory", "Batch size (images)", "Memory (MiB)"),
        (encryptions, "images", "seconds", "Encryption: time", "Images", "Seconds"),
    )
    for place, (rows, size, value, title, horizontal, vertical) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        for (line, points), (color, marker) in zip(_lines(rows, size, value).items(), _STYLES, strict=False):
            sizes, values = zip(*points, strict=True)
            axes.plot(sizes, values, marker=marker, color=color, label=line)
            axes.plot(sizes, [values[-1] * number / sizes[-1] for number in sizes], ":", color=color, linewidth=1)
        axes.plot([], [], ":", color="black", linewidth=1, label="linear")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set(title=title, xlabel=horizontal, ylabel=vertical)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(subtitle, fontsize=9)
    write_figure(path, figure)


def _steps(settings: Settings, name: str, training: Config, size: int) -> list[dict[str, Any]]:
    config = settings.model_config(name, training.dtype, size)
    works, programs = {}, {}
    for batch_size in settings.batch_sizes or (1, 2, 4, 8, 16, 32):
        step = TrainingStep(config, training, random_batch(batch_size, size))
        works[str(batch_size)], programs[str(batch_size)] = step.run, step.program_bytes / 2**20
    seconds = take_turns(works, settings.repeats, f"{name} at {size}x{size}, batches of growing size")
    return [
        {
            "line": f"{size}x{size}",
            "batch_size": int(batch),
            **summary,
            "images_per_second": int(batch) / summary["seconds"],
            "program_mebibytes": programs[batch],
        }
        for batch, summary in summarize(seconds, next(iter(works))).items()
    ]


def _encryptions(settings: Settings) -> list[dict[str, Any]]:
    size = settings.image_size
    method = parse("bs+ps", _BLOCK_SIZE)
    secret = method.derive(keys.generate(), height=size, width=size)
    secret_on_device = jax.device_put(secret)
    compiled = jax.jit(method.encrypt)
    images = np.random.default_rng(0).integers(0, 256, (_MOST_IMAGES, size, size, 3), np.uint8)
    rows = []
    for line in ("JAX", "numpy"):
        works = {}
        for count in (2**power for power in range(_MOST_IMAGES.bit_length())):
            if line == "JAX":
                placed = jax.device_put(images[:count])
                works[str(count)] = jax_work(lambda placed=placed: compiled(placed, secret_on_device))
            else:
                works[str(count)] = host_work(lambda part=images[:count]: method.encrypt(part, secret))
        seconds = take_turns(works, settings.repeats, f"encryption of growing numbers of images by {line}")
        for count, summary in summarize(seconds, "1").items():
            row = {"line": line, "images": int(count), **summary}
            rows.append({**row, "images_per_second": int(count) / summary["seconds"]})
    return rows


def _lines(rows: list[dict[str, Any]], size: str, value: str) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        lines.setdefault(row["line"], []).append((row[size], row[value]))
    return lines


def _exponents(steps: list[dict[str, Any]], encryptions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for measure, measured, size, against, value in (
        ("time of a step", steps, "batch_size", "batch size", "seconds"),
        ("memory of a step", steps, "batch_size", "batch size", "program_mebibytes"),
        ("time of encryption", encryptions, "images", "images", "seconds"),
    ):
        for line, points in _lines(measured, size, value).items():
            if len(points) > 1:
                sizes, values = (list(numbers) for numbers in zip(*points, strict=True))
                rows.append({"what": measure, "against": against, "line": line, "exponent": exponent(sizes, values)})
    return rows
