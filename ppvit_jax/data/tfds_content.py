"""Content of a data set prepared by tensorflow-datasets: its digest, and splits that keep copies together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ppvit_jax.data.hashing import digest_of, hash_files
from ppvit_jax.data.manifest import Manifest
from ppvit_jax.data.splits import TRAIN, split_role
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


def check_slices(path: Path, splits: Sequence[str], copies: int) -> None:
    """Makes sure that splits such as "train[:80%]" do not separate the augmented copies of an image.

    Args:
      path: the version folder.
      splits: the splits for training and testing.
      copies: number of copies of each training image, which are consecutive records.

    Raises:
      UserError: a split begins or ends between copies of one image.
    """
    import tensorflow_datasets as tfds

    present = tfds.builder_from_directory(path).info.splits
    for split in splits:
        for part in tfds.core.ReadInstruction.from_spec(split).to_absolute(present):
            start, stop = part.from_ or 0, present[part.splitname].num_examples if part.to is None else part.to
            if split_role(part.splitname) == TRAIN and (start % copies or stop % copies):
                raise UserError(
                    f"{split} separates the {copies} augmented copies of an image, so that training and test images "
                    f"would be alike: give multiples of {copies}, such as {part.splitname}[:{stop - stop % copies}]"
                )
