"""Messages about a checkpoint's record: descriptions of its values, and notes of those that it lacks."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ppvit_jax import models
from ppvit_jax.checkpoint.metadata import STANDARD, Metadata
from ppvit_jax.checkpoint.npz import resolve
from ppvit_jax.data.images import RESIZE_NAMES
from ppvit_jax.errors import UserError


def describe_normalization(mean: Sequence[float], std: Sequence[float]) -> str:
    """Describes a normalization, such as "mean 0.5 and std 0.5"; channels that differ are listed."""

    def describe(values: Sequence[float]) -> str:
        texts = [f"{value:.7g}" for value in values]
        return texts[0] if len(set(texts)) == 1 else f"({', '.join(texts)})"

    return f"mean {describe(mean)} and std {describe(std)}"


def describe_images(encryption: str, key_fingerprint: str | None) -> str:
    """Describes the images of an encryption and key, such as "plain images"."""
    if encryption == "none":
        return "plain images"
    return f"images encrypted with {encryption!r} (key fingerprint {key_fingerprint})"


def describe_resize(resize: str) -> str:
    """Returns the name of a way of resizing that users are shown, such as "center_crop"."""
    return next((name for name, value in RESIZE_NAMES.items() if value == resize), resize)


def complete_record(path: Path, metadata: Metadata) -> Metadata:
    """Returns a checkpoint's record, with the normalization of the checkpoint in the package, which has no record."""
    if metadata == Metadata() and path == resolve("embedded"):
        return dataclasses.replace(metadata, mean=STANDARD, std=STANDARD)
    return metadata


def list_assumptions(
    path: Path, metadata: Metadata, *, normalization: str = "", resize: str = "", classes: str = ""
) -> list[str]:
    """Lists what is assumed of a checkpoint because its record lacks it, in at most one note.

    Args:
      path: the checkpoint, which the note names.
      metadata: its record.
      normalization: the normalization that is assumed if none is recorded; "" if it does not matter.
      resize: the way of resizing that is assumed if none is recorded; "" if it does not matter.
      classes: the assumption if the record has no class names, such as "class numbers"; "" if they do not matter.

    Returns:
      One note, or none if nothing is assumed.
    """
    fields = (
        (metadata.mean, "normalization", normalization),
        (metadata.resize, "resizing of images that are not square", resize),
        (metadata.class_names, "class names", classes),
    )
    lacking = [(name, assumption) for value, name, assumption in fields if assumption and not value]
    if not lacking:
        return []
    names, assumptions = (_join(parts) for parts in zip(*lacking, strict=True))
    verb = "are" if len(lacking) > 1 or " and " in assumptions else "is"
    return [f"{path} does not record its {names}: {assumptions} {verb} assumed"]


def check_record(path: Path | str, metadata: Metadata, arrays: Mapping[str, np.ndarray]) -> None:
    """Checks that a checkpoint's record fits its arrays, and that this version knows its values.

    Args:
      path: the checkpoint's name, for messages.
      metadata: its record.
      arrays: its arrays by name; a head that is not among them is not compared.

    Raises:
      UserError: the record has an unknown option or way of resizing, or another number of classes or another image size
        than the arrays.
    """
    if metadata.resize and metadata.resize not in RESIZE_NAMES.values():
        raise UserError(
            f"{path} records the way of resizing {metadata.resize!r}, which this version does not know: update this "
            "program"
        )
    if unknown := sorted(metadata.model_options.keys() - models.OPTIONS.keys()):
        raise UserError(
            f"{path} records the model option {unknown[0]!r}, which this version does not know: update this program"
        )
    family = models.recognize(arrays)
    if family is None:
        return
    outputs = {array.shape[-1] for name, array in arrays.items() if name.startswith(family.heads) and array.ndim}
    names = len(metadata.class_names)
    if names and outputs and outputs != {names}:
        raise UserError(
            f"{path} records {names} class names, but its head has {max(outputs)} outputs: write it again with the "
            "names of its outputs"
        )
    positions, kernel = arrays.get(family.positions), arrays.get(family.patch_kernel)
    if metadata.image_size and positions is not None and kernel is not None and positions.ndim == 3:
        rows = positions.shape[1]
        blocks, side = rows - family.prefix_rows(rows), metadata.image_size // kernel.shape[0]
        if side**2 != blocks or metadata.image_size % kernel.shape[0]:
            raise UserError(
                f"{path} records images of {metadata.image_size}x{metadata.image_size} pixels, but its position "
                f"embedding has {blocks} blocks of {kernel.shape[0]}x{kernel.shape[0]}: write it again with the size "
                "of its images"
            )


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
