"""The command `ppvit predict`: predicts the logits or classes of images, without a key."""

import argparse
import time
from pathlib import Path

import numpy as np

from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.commands.shared import labeled_input, model_outputs
from ppvit_jax.commands.shared.adapted_model import SavedModel
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.commands.shared.output import new_path
from ppvit_jax.commands.shared.predictions import Predictions
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.labeled.opening import number_images
from ppvit_jax.data.listing import Images, open_folder
from ppvit_jax.data.source import StreamSource
from ppvit_jax.errors import UserError, print_warning
from ppvit_jax.files import write_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments and description."""
    describe(
        parser,
        "Predicts the classes of images. The cloud runs it with an adapted model on encrypted images, the owner with a "
        "plain model on plain images; it needs no key. It reads a checkpoint and images, and writes one file.",
        "ppvit predict --checkpoint runs/cloud/checkpoint.npz --input encrypted/test --output answers.csv",
        "ppvit predict --checkpoint tuned.npz --input images/test --output answers.npz",
        "ppvit predict --checkpoint tuned.npz --csv images.csv --output answers.csv",
    )
    model_outputs.add_model(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input", metavar="PATH", help="folder of images, one image, or version folder of a tfds data set"
    )
    labeled_input.add_formats(source)
    labeled_input.add_columns(parser)
    parser.add_argument(
        "--splits",
        default="",
        metavar="NAMES",
        help=f"splits of {labeled_input.OPTIONS} to read, separated by commas (default: all)",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="new file to write: .csv for the class and its probability, or .npz for the logits, of each image",
    )
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="add a column for each class to the .csv, named by the class, with its probability (default: write the "
        "most probable class alone)",
    )
    model_outputs.add_options(parser)


def run(arguments: argparse.Namespace) -> None:
    """Predicts every image once, in the order of the files' paths, and writes --output.

    Raises:
      UserError: the arguments or files cannot be used.
    """
    output = new_path(arguments.output, "the predictions")
    if output.suffix not in (".npz", ".csv"):
        raise UserError(f"--output {output} ends neither in .npz nor in .csv: choose one of them")
    if arguments.probabilities and output.suffix != ".csv":
        raise UserError(
            f"--probabilities is for a .csv, but --output is {output}: a .npz has all logits, so leave it out"
        )
    model = model_outputs.open_with_head(arguments)
    named = labeled_input.parse_format(arguments)
    folder = named.path if named else Path(arguments.input).expanduser()
    collection = named.open(labeled=False) if named else None
    manifest = collection.manifest if collection else manifests.read(folder if folder.is_dir() else folder.parent)
    header = manifest.header if manifest else None
    model_outputs.check_images(model, folder, header, allow_mismatch=arguments.allow_mismatch)
    resize = shared.choose_resize(arguments.resize, model.metadata.resize)
    reader = ImageReader(model.shape.image_size, resize, arguments.max_pixels)
    if named and collection:
        images = number_images(collection, named.splits, reader)
    else:
        images = open_folder(folder, reader, manifest)
    started = time.monotonic()
    files = [split.original(index) for split in images.splits for index in range(split.count)]
    logits = _predict(model, images, arguments.batch_size)
    seconds = time.monotonic() - started
    predictions = Predictions(files, logits, model.metadata.class_names, model.metadata.task)
    predictions.check_finite(str(model.path))
    csv = output.suffix == ".csv"
    write_bytes(output, predictions.to_csv(probabilities=arguments.probabilities) if csv else predictions.to_npz())
    print(f"{output}: {len(files):,} images in {seconds:.1f} s, {len(files) / seconds:.1f} images/s")
    # Messages come last, so that a mistake prints one line alone.
    # The images of a folder with a manifest have one size.
    model_outputs.print_messages(model, "" if header else arguments.resize, resizes=header is None)
    for warning in predictions.list_warnings():
        print_warning(warning)


def _predict(model: SavedModel, images: Images, batch_size: int) -> np.ndarray:
    """Returns the logits of all images, float32 [n, classes]."""

    def read(number: int) -> np.ndarray:
        split, index = images.locate(number)
        return split.read(index)[0]

    first = read(0).shape
    source = StreamSource(np.zeros(images.count, np.int32), (first[0], first[1], 3), read)
    return np.concatenate(list(model_outputs.compute_logits(model, source, batch_size, "predicting")))
