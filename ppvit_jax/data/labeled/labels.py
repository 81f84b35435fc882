"""Labels of images: names that become class numbers, and numbers that are checked."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import numpy as np

from ppvit_jax.data.class_depth import printable
from ppvit_jax.errors import UserError

# A larger number is hardly that of a class, and would make a huge head of the model.
_MOST_CLASSES = 100_000
_NONE = -1


class Labels:
    """Labels of all splits, in the order of their images.

    Labels are all names or all numbers, or all are missing. Names without a list are numbered in ascending order;
    numbers without a list have the classes 0 to the largest one.

    Attributes:
      count: number of labels so far.
    """

    def __init__(self, class_names: Sequence[str] = (), *, labeled: bool):
        """Begins without labels.

        Args:
          class_names: the list of classes of the input; empty if it has none.
          labeled: True if every image needs a label.
        """
        self.count = 0
        self._labeled = labeled
        self._class_names = tuple(class_names)
        self._numbers = {name: number for number, name in enumerate(class_names)}
        self._splits: dict[str, array[int]] = {}
        self._type: type[int] | type[str] | None = None
        self._missing = ""

    def add(self, split: str, label: int | str | None, title: str) -> None:
        """Adds the label of the next image of a split.

        Args:
          split: name of the split.
          label: number or name of the class; None without one.
          title: the image's name, for messages.

        Raises:
          UserError: the label is missing or no class, or it is a name where others are numbers.
        """
        if label is None:
            if self._labeled or self._type is not None:
                raise UserError(f"{title} has no label: add it, or leave the image out")
            self._missing = self._missing or title
            number = _NONE
        else:
            self._check_type(type(label), repr(label), title)
            if isinstance(label, int):
                number = label
                self.check_numbers(np.array([label]), lambda _: title)
            elif self._class_names and label not in self._numbers:
                known = f"the list of {len(self._class_names):,} class names lacks it"
                raise UserError(f"{title} has the label {printable(label)!r}, but {known}: correct one of them")
            else:
                number = self._numbers.setdefault(label, len(self._numbers))
        self._splits.setdefault(split, array("i")).append(number)
        self.count += 1

    def add_numbers(self, split: str, numbers: np.ndarray, title: Callable[[int], str]) -> None:
        """Adds the labels of the next images of a split, as `add` does.

        Args:
          split: name of the split.
          numbers: the labels, int [n].
          title: index in `numbers` -> the image's name, for messages.
        """
        if len(numbers):
            self._check_type(int, str(numbers[0]), title(0))
            self.check_numbers(numbers, title)
            self._splits.setdefault(split, array("i")).extend(numbers.tolist())
            self.count += len(numbers)

    def check_numbers(self, numbers: np.ndarray, title: Callable[[int], str]) -> None:
        """Raises UserError if a label is no class; see `add_numbers`."""
        most = len(self._class_names) or _MOST_CLASSES
        wrong = np.flatnonzero((numbers < 0) | (numbers >= most))
        if not len(wrong):
            return
        index = int(wrong[0])
        if numbers[index] == _NONE:
            reason = "which stands for no label: choose a labeled split, or leave the image out"
        elif self._class_names:
            reason = f"but the {most:,} class names are numbered from 0 to {most - 1:,}: correct one of them"
        else:
            reason = f"but classes without names are numbered from 0 to at most {most - 1:,}: correct it"
        raise UserError(f"{title(index)} has the label {numbers[index]}, {reason}")

    def finish(self) -> tuple[tuple[str, ...], dict[str, np.ndarray | None], bool]:
        """Numbers the classes.

        Returns:
          The class names, empty without labels; the labels of each split, int32 [n], None without labels; and True if
          a class without images is a class, too, as one of a list is.
        """
        splits = {split: np.array(numbers, np.int32) for split, numbers in self._splits.items()}
        if self._type is None:
            return (), dict.fromkeys(splits), True
        if self._class_names:
            return self._class_names, dict(splits), True
        if self._type is int:
            largest = max(int(numbers.max()) for numbers in splits.values())
            return tuple(map(str, range(largest + 1))), dict(splits), True
        names = sorted(self._numbers)
        place = np.empty(len(names), np.int32)
        place[[self._numbers[name] for name in names]] = np.arange(len(names), dtype=np.int32)
        return tuple(names), {split: place[numbers] for split, numbers in splits.items()}, False

    def _check_type(self, present: type[int] | type[str], label: str, title: str) -> None:
        if self._missing:
            raise UserError(f"{self._missing} has no label, but {title} has: add it, or leave the image out")
        if self._type not in (None, present):
            raise UserError(f"{title} has the label {label}, but others are {_WORDS[self._type]}: write all alike")
        self._type = present


_WORDS: dict[object, str] = {int: "numbers", str: "names"}
