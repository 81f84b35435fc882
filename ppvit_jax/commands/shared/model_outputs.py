"""Logits of saved models on images, for the commands that need no key."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from ppvit_jax import checkpoint, models
from ppvit_jax.command_line import Number
from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.commands.shared.adapted_model import READABLE, SavedModel, open_model, warn_of_resize
from ppvit_jax.commands.shared.deltas import add_base, open_merged
from ppvit_jax.data.images import RESIZES
from ppvit_jax.data.loader import BatchOptions, test_batches
from ppvit_jax.data.manifest import Header
from ppvit_jax.data.preprocess import normalize_images, preprocess
from ppvit_jax.data.progress import Progress
from ppvit_jax.data.source import Source
from ppvit_jax.errors import COUNT, UserError, print_note
from ppvit_jax.training.compiler import fix_precision
from ppvit_jax.training.matching import LoadedImages, LoadedModel, check_match


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds --checkpoint and --base."""
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="CKPT",
        help=f"checkpoint of a model with a head: {READABLE}",
    )
    add_base(parser, "checkpoint that the run started from")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds --batch-size, --resize, --max-pixels and --allow-mismatch."""
    parser.add_argument(
        "--batch-size",
        action=Number,
        range=COUNT,
        default=64,
        metavar="N",
        help="number of images that the model processes at once (default: %(default)s)",
    )
    shared.add_resize(parser, recorded=True)
    shared.add_max_pixels(parser)
    parser.add_argument(
        "--allow-mismatch",
        action="store_true",
        help="accept images whose key or encryption is not the model's (default: reject them)",
    )


def open_with_head(arguments: argparse.Namespace) -> SavedModel:
    """Reads the model of --checkpoint, and of --base if it is a delta.

    Raises:
      UserError: a file cannot be read, or the model has no head.
    """
    path, base = checkpoint.resolve(arguments.checkpoint), arguments.base
    model = open_merged(path, base, dtype="float32") if base else open_model(path, dtype="float32")
    if not model.shape.num_classes:
        raise UserError(f"{path} has no head, so it cannot predict: fine-tune it first")
    return model


def check_images(model: SavedModel, folder: Path, header: Header | None, *, allow_mismatch: bool) -> None:
    """Rejects images of another key, encryption or size than the model's; see `check_match`."""
    shape = model.shape
    check_match(
        LoadedModel(str(model.path), model.metadata, shape.image_size, shape.patch_size),
        LoadedImages(str(folder), header),
        allow_mismatch=allow_mismatch,
    )


def compute_logits(model: SavedModel, source: Source, batch_size: int, activity: str) -> Iterator[np.ndarray]:
    """Yields the logits of a source's images, batch by batch, in order.

    Args:
      model: a model with a head.
      source: images of one size.
      batch_size: number of images in a batch; the last batch has the rest.
      activity: word for the progress line, such as "predicting".

    Yields:
      float32 [n, classes].

    Raises:
      UserError: an image cannot be read.
    """
    shape = model.shape
    functions, (mean, std) = models.build(shape), model.metadata.normalization
    precise = fix_precision(functions.apply, shape.dtype)

    @jax.jit
    def apply(params: models.Params, statistics: models.Statistics, batch: np.ndarray) -> jax.Array:
        pixels = preprocess(jax.numpy.asarray(batch), shape.image_size)
        return precise(params, normalize_images(pixels, mean, std, shape.dtype), statistics)

    on_device = jax.device_put((model.params, model.statistics))
    progress, done = Progress(activity, len(source)), 0
    for batch in test_batches(source, BatchOptions(min(batch_size, len(source)))):
        count = int(batch["mask"].sum())
        yield np.asarray(apply(*on_device, batch["image"]))[:count]
        done += count
        progress.update(done)
    progress.close()


def print_messages(model: SavedModel, requested: str | None, *, resizes: bool) -> None:
    """Prints what was assumed because the record lacks it, and where an argument contradicts the record.

    Args:
      model: the model.
      requested: --resize; "" or None if it was not given, or if it has no effect.
      resizes: True if the images may have been resized.
    """
    metadata = model.metadata
    warn_of_resize(model, requested)
    assumptions = checkpoint.list_assumptions(
        model.path,
        metadata,
        normalization=checkpoint.describe_normalization(*metadata.normalization),
        resize=checkpoint.describe_resize(RESIZES[0]) if resizes and not requested else "",
        classes="class numbers from 0",
    )
    for assumption in assumptions:
        print_note(assumption)
