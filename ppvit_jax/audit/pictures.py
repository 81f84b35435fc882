"""Pictures of recovered images, drawn with matplotlib without a display."""

import textwrap
from pathlib import Path

import numpy as np

from ppvit_jax.files import new_figure, write_figure


def draw_recovered(images: list[tuple[str, dict[str, np.ndarray]]], path: Path, subtitle: str) -> None:
    """Draws encrypted, recovered and plain images: a row for each entry, or a column if there are more than five.

    Args:
      images: for each entry, a label and pictures by title, each uint8 [height, width, 3].
      path: PNG file to write.
      subtitle: name and result of the attack.
    """
    titles = list(dict.fromkeys(title for _, pictures in images for title in pictures))
    side_by_side = len(images) <= 5
    rows, columns = (len(images), len(titles)) if side_by_side else (len(titles), len(images))
    figure = new_figure(2.2 * columns + 0.4, 2.2 * rows + 0.9)
    for number, (label, pictures) in enumerate(images):
        for kind, title in enumerate(titles):
            row, column = (number, kind) if side_by_side else (kind, number)
            axes = figure.add_subplot(rows, columns, 1 + row * columns + column)
            axes.set(xticks=[], yticks=[])
            axes.set_box_aspect(1)
            if title in pictures:
                axes.imshow(pictures[title], interpolation="nearest")
            else:
                axes.text(0.5, 0.5, "no image", ha="center", va="center", fontsize=9)
            across, down = (title, label) if side_by_side else (label, title)
            if row == 0:
                axes.set_title(textwrap.fill(across, 28), fontsize=10)
            if column == 0:
                axes.set_ylabel(textwrap.fill(down, 28), fontsize=10)
    figure.suptitle(textwrap.fill(subtitle, 30 * columns), fontsize=9)
    write_figure(path, figure)
