"""Content of a data set prepared by tensorflow-datasets: its digest, and splits that keep copies together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from ppvit_jax.data.hashing import digest_of, hash_files
from ppvit_jax.data.manifest import Manifest
from ppvit_jax.data.splits import TRAIN, split_role
from ppvit_jax.data.validation import refuse_overlap, refuse_test
from ppvit_jax.errors import UserError


def digest_records(path: Path, manifest: Manifest | None = None) -> str:
    """Returns the SHA-256, in hexadecimal, of the names and contents of a data set's records and classes.

    Args:
      path: the version folder.
      manifest: its manifest, whose SHA-256 of each file spares reading them; or None.
    """
    names = sorted(
        file.name for file in path.iterdir() if ".array_record" in file.name or file.name.endswith(".labels.txt")
    )
    if manifest:
        digests = [manifest.sha256(path / name) for name in names]
    else:
        hashed = hash_files(len(names), lambda index: path / names[index], unit="files")
        digests = [row.tobytes().hex() for row in hashed]
    return digest_of(zip(names, digests, strict=True))


def check_validation(path: Path, validation: str, train_split: str, test_split: str) -> None:
    """Makes sure that the validation images are neither training nor test images.

    Args:
      path: the version folder.
      validation, train_split, test_split: the splits, in tfds' notation.

    Raises:
      UserError: the validation split has records in common with another.
    """
    if _overlap(path, validation, train_split):
        instead = f"a slice apart, such as {train_split}[:90%] to train on, and [90%:] to validate"
        raise refuse_overlap(validation, f"the training split {train_split!r}", instead)
    if _overlap(path, validation, test_split):
        raise refuse_test(validation)


def _overlap(path: Path, first: str, second: str) -> bool:
    """Returns True if two splits, such as "train[:80%]" and "train[70%:]", have records in common.

    Args:
      path: the version folder.
      first, second: the splits, in tfds' notation.
    """
    pairs = itertools.product(_ranges(path, first), _ranges(path, second))
    return any(one == other and max(a, c) < min(b, d) for (one, a, b), (other, c, d) in pairs)


def _ranges(path: Path, split: str) -> list[tuple[str, int, int]]:
    """Returns the stored split, the first record and the record after the last one of each part of a split."""
    import tensorflow_datasets as tfds

    present = tfds.builder_from_directory(path).info.splits
    return [
        (part.splitname, part.from_ or 0, present[part.splitname].num_examples if part.to is None else part.to)
        for part in tfds.core.ReadInstruction.from_spec(split).to_absolute(present)
    ]


def check_slices(path: Path, splits: Sequence[str], copies: int) -> None:
    """Makes sure that splits such as "train[:80%]" do not separate the augmented copies of an image.

    Args:
      path: the version folder.
      splits: the splits for training and testing.
      copies: number of copies of each training image, which are consecutive records.

    Raises:
      UserError: a split begins or ends between copies of one image.
    """
    for split in splits:
        for name, start, stop in _ranges(path, split):
            if split_role(name) == TRAIN and (start % copies or stop % copies):
                raise UserError(
                    f"{split} separates the {copies} augmented copies of an image, so that training and test images "
                    f"would be alike: give multiples of {copies}, such as {name}[:{stop - stop % copies}]"
                )
