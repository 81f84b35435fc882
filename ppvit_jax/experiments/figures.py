"""Figures of the results, drawn with matplotlib without a display."""

import functools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec

import numpy as np

from ppvit_jax.errors import is_installed
from ppvit_jax.files import new_figure, write_figure
from ppvit_jax.training.results import MetricsLine

P = ParamSpec("P")
# Okabe and Ito's colors, each with a marker, so that curves differ in grayscale and for colorblind readers.
_STYLES = (
    ("#0072B2", "o", "-"),
    ("#E69F00", "s", "--"),
    ("#D55E00", "^", "-"),
    ("#009E73", "D", "-"),
    ("#CC79A7", "v", "-"),
    ("#56B4E9", "P", "-"),
    ("#000000", "X", "-"),
    ("#0072B2", "<", ":"),
    ("#E69F00", ">", ":"),
    ("#D55E00", "p", ":"),
    ("#009E73", "h", ":"),
    ("#CC79A7", "*", ":"),
    ("#56B4E9", "d", ":"),
)
_ENCRYPTION_TITLES = {
    "plain": "plain",
    "ps": "pixel shuffling",
    "bs": "block scrambling",
    "bs+ps": "block scrambling\n+ pixel shuffling",
}


def _if_matplotlib_is_installed(draw: Callable[P, None]) -> Callable[P, None]:
    """Makes a function that draws do nothing without matplotlib: tables need no pictures."""

    @functools.wraps(draw)
    def draw_or_not(*arguments: P.args, **options: P.kwargs) -> None:
        if is_installed("matplotlib"):
            draw(*arguments, **options)

    return draw_or_not


@_if_matplotlib_is_installed
def draw_curves(histories: Mapping[str, Sequence[MetricsLine]], path: Path, subtitle: str) -> None:
    """Draws training and test accuracy and loss by epoch (the paper's Figure 6).

    Args:
      histories: for each label, the "epoch" lines of a run's metrics.jsonl.
      path: PNG file to write.
      subtitle: description of model and data.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(9, 7 if len(histories) <= 4 else 9)
    for column, (title, fields) in enumerate(
        (("Training", ("train_accuracy", "train_loss")), ("Testing", ("test_accuracy", "test_loss")))
    ):
        for row, (field, scale, label) in enumerate(zip(fields, (100, 1), ("Accuracy (%)", "Loss"), strict=True)):
            axes = figure.add_subplot(2, 2, 1 + 2 * row + column)
            for number, (name, history) in enumerate(histories.items()):
                color, marker, line = _STYLES[number % len(_STYLES)]
                axes.plot(
                    [entry["epoch"] for entry in history],
                    [scale * entry[field] for entry in history],
                    color=color,
                    marker=marker,
                    markersize=4 + 3 * (number == 0),
                    markerfacecolor="none" if number == 0 else color,
                    linestyle=line,
                    label=name,
                )
            axes.set(xlabel="Epoch", ylabel=label, title=title if row == 0 else None)
            axes.set_xlim(0.5, 0.5 + max(len(history) for history in histories.values()))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.3)
            if (row, column) == (0, 1) and len(histories) <= 4:
                axes.legend()
    if len(histories) > 4:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", fontsize=7)
    figure.suptitle(subtitle, fontsize=8)
    write_figure(path, figure)


@_if_matplotlib_is_installed
def draw_samples(rows: list[tuple[str, dict[str, np.ndarray]]], path: Path, *, block_size: int) -> None:
    """Draws images beside their encryptions (the paper's Figure 4).

    Args:
      rows: for each row, a label and images by encryption, each uint8 [height, width, 3].
      path: PNG file to write.
      block_size: side of a block in pixels, for the title.
    """
    columns = list(rows[0][1])
    figure = new_figure(2.2 * len(columns) + 0.4, 2.2 * len(rows) + 0.9)
    for row, (label, images) in enumerate(rows):
        for column, name in enumerate(columns):
            axes = figure.add_subplot(len(rows), len(columns), 1 + row * len(columns) + column)
            axes.imshow(images[name], interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title(_ENCRYPTION_TITLES[name], fontsize=10)
            if column == 0:
                axes.set_ylabel(label)
    height, width = rows[0][1][columns[0]].shape[:2]
    figure.suptitle(f"{height}x{width} pixels, blocks of {block_size}x{block_size}", fontsize=8)
    write_figure(path, figure)


@_if_matplotlib_is_installed
def draw_access(rows: list[tuple[str, str, tuple[float, ...]]], chance: float, path: Path, subtitle: str) -> None:
    """Draws models' accuracies on images with several keys: a mark for each key, and a bar for the mean.

    Args:
      rows: for each row, the model, its test images, and accuracies in percent.
      chance: accuracy in percent of always predicting the most frequent class.
      path: PNG file to write.
      subtitle: description of model and data.
    """
    figure = new_figure(9, 0.55 * len(rows) + 1.6)
    axes = figure.add_subplot()
    colors = dict(zip(dict.fromkeys(model for model, _, _ in rows), (style[0] for style in _STYLES), strict=False))
    for place, (model, _, accuracies) in enumerate(rows):
        mean = sum(accuracies) / len(accuracies)
        axes.barh(place, mean, height=0.6, color=colors[model], alpha=0.55)
        axes.plot(accuracies, [place] * len(accuracies), "|", color="black", markersize=9)
        axes.text(max(accuracies) + 1.5, place, f"{mean:.1f}", va="center", fontsize=9)
    axes.axvline(chance, color="black", linestyle="--", linewidth=1, label=f"most frequent class, {chance:.1f}")
    axes.set_yticks(range(len(rows)), [f"{model} model, {images}" for model, images, _ in rows])
    axes.invert_yaxis()
    axes.set(xlim=(0, 108), xlabel="Test accuracy (%); a mark for each key")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3, axis="x")
    figure.suptitle(subtitle, fontsize=8)
    write_figure(path, figure)


@_if_matplotlib_is_installed
def draw_adaptation(
    rows: list[tuple[str, float | None, float | None]], plain: float, chance: float, path: Path, subtitle: str
) -> None:
    """Draws the accuracy under every encryption, adapted and not adapted, with lines for plain images and chance.

    Args:
      rows: for each row, a label, and accuracies in percent of the adapted model and of the model that is not adapted;
        None for a missing run.
      plain: accuracy in percent of the plain model on plain images.
      chance: accuracy in percent of always predicting the most frequent class.
      path: PNG file to write.
      subtitle: description of model and data.
    """
    figure = new_figure(9, 0.5 * len(rows) + 1.8)
    axes = figure.add_subplot()
    bars = {"adapted": [row[1] for row in rows], "not adapted": [row[2] for row in rows]}
    for number, (name, values) in enumerate(bars.items()):
        places = [place + 0.4 * number - 0.2 for place in range(len(rows))]
        axes.barh(places, [value or 0 for value in values], height=0.36, color=_STYLES[2 * number][0], label=name)
        for place, value in zip(places, values, strict=True):
            if value is not None:
                axes.text(value + 0.7, place, f"{value:.1f}", va="center", fontsize=8)
    axes.axvline(plain, color="black", linewidth=1, label=f"plain, {plain:.1f}")
    axes.axvline(chance, color="black", linestyle="--", linewidth=1, label=f"most frequent class, {chance:.1f}")
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.invert_yaxis()
    axes.set(xlim=(0, min(108, 1.3 * plain + 8)), xlabel="Test accuracy (%)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=4, fontsize=9, frameon=False)
    axes.grid(alpha=0.3, axis="x")
    figure.suptitle(subtitle, fontsize=8)
    write_figure(path, figure)


@_if_matplotlib_is_installed
def draw_gallery(pictures: list[tuple[str, np.ndarray, float | None, float | None]], path: Path, subtitle: str) -> None:
    """Draws one image under many encryptions.

    Args:
      pictures: for each picture, its title, its pixels (uint8 [height, width, 3], or [rows, columns] for an encoding),
        and its structural similarity and peak signal-to-noise ratio in dB to the plain image, or None.
      path: PNG file to write.
      subtitle: description of the image and its size.
    """
    columns = 5
    rows = -(-len(pictures) // columns)
    figure = new_figure(2.5 * columns, 3.05 * rows + 0.5)
    for place, (title, picture, similarity, ratio) in enumerate(pictures, start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(picture, interpolation="nearest", cmap="gray", aspect="auto" if picture.ndim == 2 else "equal")
        axes.set(xticks=[], yticks=[])
        axes.set_box_aspect(1)
        axes.set_title(textwrap.fill(title, 28), fontsize=9)
        if similarity is not None and ratio is not None:
            axes.set_xlabel(f"SSIM {similarity:.3f}, PSNR {ratio:.1f} dB", fontsize=8)
        elif place > 1:
            axes.set_xlabel("encoding, values stretched", fontsize=8)
    figure.suptitle(subtitle, fontsize=8)
    write_figure(path, figure)
