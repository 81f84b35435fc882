"""CSV list of the labels of encrypted images, where class folders cannot tell them."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from ppvit_jax.data import manifest as manifests
from ppvit_jax.errors import UserError, print_note
from ppvit_jax.files import written_aside

NAME = "labels.csv"
_COPY = re.compile(r"_\d+$")


def write_label_list(folder: Path, labels: Mapping[str, tuple[str, str]]) -> None:
    """Writes labels.csv, which lists the images of a complete output folder, and says so on stderr.

    Args:
      folder: the folder, with its manifest.
      labels: split and label of each image, by its path in the folder without an ending. Copies of an image have its
        label.

    Raises:
      UserError: the folder has no manifest.
    """
    manifest = manifests.read(folder)
    if manifest is None:
        raise UserError(f"{folder} has no {manifests.NAME}: run the same command again")
    with written_aside(folder / NAME) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        columns = 3 if any(split for split, _ in labels.values()) else 2
        rows.writerow(["path", "label", "split"][:columns])
        for name in manifest.files:
            stem = name.removesuffix(".png")
            split, label = labels[stem] if stem in labels else labels[_COPY.sub("", stem)]
            rows.writerow([name, label, split][:columns])
    print_note(
        f"{folder / NAME} lists the labels, which class folders cannot tell: train on it with "
        f"config.data.source=csv and config.data.dir={folder / NAME}"
    )
