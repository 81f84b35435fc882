"""Labels of images: names that become class numbers, and numbers that are checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ppvit_jax.errors import UserError

# A larger number is hardly that of a class, and would make a huge head of the model.
_MOST_CLASSES = 100_000


class Vocabulary:
    """Classes by name, numbered in the order in which they appear."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Returns the number of a class; a new name gets the next one."""
        return self._numbers.setdefault(name, len(self._numbers))

    def sort(self, labels: Sequence[np.ndarray]) -> tuple[tuple[str, ...], list[np.ndarray]]:
        """Numbers the classes anew in the order of their names.

        Args:
          labels: arrays of numbers from `number`.

        Returns:
          The class names in ascending order, and the arrays with the new numbers, int32.
        """
        names = list(self._numbers)
        order = sorted(range(len(names)), key=names.__getitem__)
        place = np.empty(len(names), np.int32)
        place[order] = np.arange(len(names), dtype=np.int32)
        return tuple(names[number] for number in order), [place[array] for array in labels]


def name_classes(
    labels: Sequence[np.ndarray], names: Sequence[str], title: Callable[[int, int], str]
) -> tuple[str, ...]:
    """Checks labels that are numbers, and names their classes.

    Args:
      labels: the labels of each split, int [n].
      names: the names of the classes, if the input lists them; else empty.
      title: (number of the split, index) -> the image's name, for messages.

    Returns:
      The names, or else the numbers from 0 to the largest label.

    Raises:
      UserError: a label is no class, or two classes have the same name.
    """
    if len(set(names)) < len(names):
        twin = next(name for number, name in enumerate(names) if name in names[:number])
        raise UserError(f"{title(0, 0)} has two classes of the name {twin!r}: rename one")
    most = len(names) or _MOST_CLASSES
    for number, array in enumerate(labels):
        wrong = np.flatnonzero((array < 0) | (array >= most))
        if len(wrong):
            index = int(wrong[0])
            reason = "which stands for no label: choose a labeled split, or leave the image out"
            if array[index] != -1:
                known = f"{len(names):,} class names" if names else "labels without names"
                reason = f"but {known} are numbered from 0 to {most - 1:,}: correct it"
            raise UserError(f"{title(number, index)} has the label {array[index]}, {reason}")
    largest = max((int(array.max()) for array in labels if len(array)), default=-1)
    return tuple(names) or tuple(map(str, range(largest + 1)))
