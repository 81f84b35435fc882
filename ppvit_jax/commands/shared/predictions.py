"""Predictions of images as files: a table of classes (`.csv`) or arrays of logits (`.npz`)."""

import csv
import dataclasses
import io

import numpy as np

from ppvit_jax.errors import UserError

# Fewer images may well show one class.
_FEW = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of a model.

    Attributes:
      files: names of the images.
      logits: float32 [images, classes].
      class_names: name of each output; empty if the checkpoint records none.
      task: see `ppvit_jax.checkpoint.Metadata`.
    """

    files: list[str]
    logits: np.ndarray
    class_names: tuple[str, ...]
    task: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each output; its number, from 0, if the checkpoint records no names."""
        return self.class_names or tuple(map(str, range(self.logits.shape[1])))

    @property
    def best(self) -> np.ndarray:
        """Index of the most probable class of each image, int64 [images]."""
        return self.logits.argmax(axis=1)

    def check_finite(self, where: str) -> None:
        """Checks that every logit is finite.

        Args:
          where: the checkpoint's name, for the message.

        Raises:
          UserError: a logit is not finite; the message names the first such image.
        """
        wrong = np.flatnonzero(~np.isfinite(self.logits).all(axis=1))
        if len(wrong):
            raise UserError(
                f"the logits of {where} for {self.files[wrong[0]]} are not finite (NaN or infinity), as for "
                f"{len(wrong):,} of {len(self.files):,} images: its weights are damaged or too large, so use another "
                "checkpoint"
            )

    def list_warnings(self) -> list[str]:
        """Returns a warning if many images are all predicted to be of one class, and none otherwise."""
        classes = np.unique(self.best)
        if len(self.files) < _FEW or len(self.names) < 2 or len(classes) > 1:
            return []
        return [
            f"all {len(self.files):,} images are predicted as {self.names[classes[0]]!r}: unless they show one class, "
            "check that the model and the images belong together"
        ]

    def to_npz(self) -> bytes:
        """Returns the arrays logits, files, class_names and class_index (the best class of each image) as `.npz`."""
        content = io.BytesIO()
        np.savez(
            content,
            logits=self.logits,
            files=np.array(self.files),
            class_names=np.array(self.names),
            class_index=self.best,
        )
        return content.getvalue()

    def to_csv(self, *, probabilities: bool) -> bytes:
        """Returns a row with the best class and its probability for each image.

        The probability is the softmax, or for several labels per image the sigmoid of each class.

        Args:
          probabilities: True adds a column for each class, named by the class, with its probability.
        """
        logits = self.logits.astype(np.float64)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = exponentials / exponentials.sum(axis=1, keepdims=True)
        if self.task == "multi_label":
            # The sigmoid, without overflow.
            shares = np.exp(-np.logaddexp(0, -logits))
        content = io.BytesIO()
        text = io.TextIOWrapper(content, encoding="utf-8", errors="surrogateescape", newline="", write_through=True)
        rows, names = csv.writer(text), self.names
        rows.writerow(["file", "class", "probability", *(names if probabilities else ())])
        for file, best, row in zip(self.files, self.best, shares, strict=True):
            others = [f"{share:.6f}" for share in row] if probabilities else []
            rows.writerow([file, names[best], f"{row[best]:.6f}", *others])
        return content.getvalue()
