"""Deltas, as the commands merge them with their base."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ppvit_jax import checkpoint
from ppvit_jax.commands.shared.adapted_model import SavedModel, check_key
from ppvit_jax.errors import UserError
from ppvit_jax.training import merging

if TYPE_CHECKING:
    from ppvit_jax.keys import SecretKey


def add_base(parser: argparse.ArgumentParser, base: str) -> None:
    """Adds --base; `base` describes the models that it may name."""
    parser.add_argument(
        "--base",
        default="",
        metavar="BASE",
        help=f"{base}; needed only if --checkpoint is a delta, which LoRA and the linear probe write",
    )


def open_merged(path: Path, base: str, dtype: str = "") -> SavedModel:
    """Makes a whole model of a delta and its base, which takes the images that the base takes.

    Args:
      path: the delta.
      base: name of the base, as the user gives it.
      dtype: the compute dtype; see `ppvit_jax.training.merging.merge`.

    Raises:
      UserError: a file cannot be read, or they do not belong together.
    """
    merged = merging.merge(path, checkpoint.resolve(base), dtype)
    if merged.is_plain:
        metadata = merged.metadata
        raise UserError(
            f"{path} is a delta of a model adapted to {metadata.encryption!r} (key fingerprint "
            f"{metadata.key_fingerprint}), and the base {base} is plain: give the adapted model, or make a plain model "
            f"by ppvit restore --key KEY --base {base} --checkpoint {path} --output tuned.npz"
        )
    return SavedModel(path, merged.params, {}, merged.metadata, merged.shape)


def open_adapted_delta(arguments: argparse.Namespace, key: "SecretKey") -> SavedModel:
    """Makes a whole adapted model of the delta of --checkpoint and --base, and checks that the key is the model's.

    Raises:
      UserError: see `open_merged`; or the delta is of a plain model, or of one adapted with another key.
    """
    path, base = checkpoint.resolve(arguments.checkpoint), checkpoint.resolve(arguments.base)
    merged = merging.merge(path, base)
    model = SavedModel(path, merged.params, {}, merged.metadata, merged.shape)
    model.check_trained_images()
    if model.metadata.encryption == "none":
        raise UserError(
            f"{path} is a delta of a plain model, so that there is nothing to restore: make a whole model by ppvit "
            f"merge --base {arguments.base} --delta {path} --output tuned.npz"
        )
    check_key(path, model.metadata, key)
    if not merged.is_plain:
        return model
    return model.with_params(merged.adapt(model.permutations(key), base))


def describe_delta(path: Path) -> dict[str, str]:
    """Returns the facts that `ppvit info` shows of a delta alone.

    Raises:
      UserError: the file is damaged, or no delta.
    """
    arrays, metadata = checkpoint.read(path, delta=True)
    if (delta := metadata.delta) is None:
        raise UserError(f"{path} is a whole model, and no delta")
    count = sum(array.size for array in arrays.values())
    types = ", ".join(sorted({str(array.dtype) for array in arrays.values()}))
    listed = f" ({', '.join(metadata.class_names)})" if metadata.class_names else ""
    commands = [f"ppvit merge --base {delta.base} --delta {path} --output whole.npz"]
    if metadata.encryption != "none":
        commands.append(f"ppvit restore --key KEY --base {delta.base} --checkpoint {path} --output tuned.npz")
    return {
        "checkpoint": f"delta of {metadata.model}, {delta.title}, {count:,} trained parameters, {types}",
        "base": f"{delta.base}, SHA-256 {delta.digest.sha256[:12]}... of its tensors",
        "image size": f"{metadata.image_size}x{metadata.image_size}",
        "classes": f"{len(metadata.class_names)}{listed}",
        "whole model": " or ".join(commands),
    }
