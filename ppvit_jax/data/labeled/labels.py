"""Labels of images: names that become class numbers, and numbers that are checked; one or several for an image."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import numpy as np

from ppvit_jax.data.class_depth import printable
from ppvit_jax.errors import UserError

# A larger number is hardly that of a class, and would make a huge head of the model.
_MOST_CLASSES = 100_000
_NONE = -1
_WORDS: dict[object, str] = {int: "numbers", str: "names"}

Label = int | str


class _Split:
    """Class numbers of the images of one split, those of one image after another, and the end of each image's."""

    def __init__(self) -> None:
        self.numbers, self.ends = array("i"), array("q")


class Labels:
    """Labels of all splits, in the order of their images.

    Labels are all names or all numbers. Names without a list are numbered in ascending order; numbers without a list
    have the classes 0 to the largest one. If one image has a list of labels, every image may have any number of them;
    otherwise each has one, or none has.

    Attributes:
      count: number of images so far.
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
        self._splits: dict[str, _Split] = {}
        self._type: type[int] | type[str] | None = None
        self._several = False
        self._missing = ""

    def add(self, split: str, label: Label | Sequence[Label] | None, title: str) -> None:
        """Adds the label of the next image of a split.

        Args:
          split: name of the split.
          label: number or name of the class; a list of any number of them; None without one.
          title: the image's name, for messages.

        Raises:
          UserError: the label is no class, or it is a name where others are numbers.
        """
        if label is None:
            self._missing = self._missing or title
            labels: Sequence[Label] = []
        elif isinstance(label, int | str):
            labels = [label]
        else:
            self._several, labels = True, label
        part = self._splits.setdefault(split, _Split())
        part.numbers.extend([self._number(item, title) for item in labels])
        part.ends.append(len(part.numbers))
        self.count += 1

    def add_numbers(self, split: str, numbers: np.ndarray, title: Callable[[int], str]) -> None:
        """Adds the labels of the next images of a split, one for each, as `add` does.

        Args:
          split: name of the split.
          numbers: the labels, int [n].
          title: index in `numbers` -> the image's name, for messages.
        """
        if len(numbers):
            self._check_type(int, str(numbers[0]), title(0))
            self._check_range(numbers, title)
            part = self._splits.setdefault(split, _Split())
            part.ends.extend(range(len(part.numbers) + 1, len(part.numbers) + len(numbers) + 1))
            part.numbers.extend(numbers.tolist())
            self.count += len(numbers)

    def finish(self) -> tuple[tuple[str, ...], dict[str, np.ndarray | None], bool]:
        """Numbers the classes.

        Returns:
          The class names, empty without labels; the labels of each split, int32 [n], or uint8 [n, classes] of 0 and 1
          for any number of labels, or None without labels; and True if a class without images is a class, too, as one
          of a list is.

        Raises:
          UserError: an image has no label, but needs one.
        """
        if self._missing and not self._several and (self._labeled or self._type is not None):
            raise UserError(f"{self._missing} has no label: add it, or leave the image out")
        if self._type is None:
            if self._labeled:
                raise UserError("no image has a label: fill in the labels, or name where they are")
            return (), dict.fromkeys(self._splits), True
        class_names, place, declared = self._name_classes()
        arrays: dict[str, np.ndarray | None] = {}
        for split, part in self._splits.items():
            numbers = place[np.array(part.numbers, np.int64)]
            if self._several:
                rows = np.repeat(np.arange(len(part.ends)), np.diff(np.array(part.ends), prepend=0))
                arrays[split] = marks = np.zeros((len(part.ends), len(class_names)), np.uint8)
                marks[rows, numbers] = 1
            else:
                arrays[split] = numbers
        return class_names, arrays, declared

    def _name_classes(self) -> tuple[tuple[str, ...], np.ndarray, bool]:
        """Returns the class names, the place of each number among them, and True if classes may lack images."""
        if self._class_names:
            return self._class_names, np.arange(len(self._class_names), dtype=np.int32), True
        if self._type is int:
            largest = max(max(part.numbers, default=0) for part in self._splits.values())
            return tuple(map(str, range(largest + 1))), np.arange(largest + 1, dtype=np.int32), True
        names = sorted(self._numbers)
        place = np.empty(len(names), np.int32)
        place[[self._numbers[name] for name in names]] = np.arange(len(names), dtype=np.int32)
        return tuple(names), place, False

    def _number(self, label: Label, title: str) -> int:
        self._check_type(int if isinstance(label, int) else str, repr(label), title)
        if isinstance(label, int):
            self._check_range(np.array([label]), lambda _: title)
            return label
        if self._class_names and label not in self._numbers:
            known = f"the list of {len(self._class_names):,} class names lacks it"
            raise UserError(f"{title} has the label {printable(label)!r}, but {known}: correct one of them")
        return self._numbers.setdefault(label, len(self._numbers))

    def _check_range(self, numbers: np.ndarray, title: Callable[[int], str]) -> None:
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

    def _check_type(self, present: type[int] | type[str], label: str, title: str) -> None:
        if self._type not in (None, present):
            raise UserError(f"{title} has the label {label}, but others are {_WORDS[self._type]}: write all alike")
        self._type = present
