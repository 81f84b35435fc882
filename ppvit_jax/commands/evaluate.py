"""The command `ppvit evaluate`: measures a model on labeled images, without a key."""

import argparse
import time
from pathlib import Path

import numpy as np

from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.commands.shared import labeled_input, model_outputs
from ppvit_jax.commands.shared.adapted_model import SavedModel
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.commands.shared.output import results_in
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data import tfds_source
from ppvit_jax.data.class_depth import printable
from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.labeled.opening import LabeledSplit
from ppvit_jax.data.manifest import Manifest
from ppvit_jax.data.one_split import open_collection_split, open_folder_split, open_tfds_split
from ppvit_jax.errors import UserError, print_note
from ppvit_jax.files import local_path
from ppvit_jax.training.evaluation.files import JSON, Origin, write_evaluation
from ppvit_jax.training.evaluation.measures import Measured, make_measures

# Measures that are printed as numbers; the others are shares.
_NUMBERS = ("loss", "roc_auc", "calibration_error", "mean_average_precision")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments and description."""
    describe(
        parser,
        "Measures a model on labeled images: loss, accuracy, top-5 and per-class accuracy, calibration error and more. "
        "The cloud runs it with an adapted model on encrypted images, the owner with a plain model on plain images; it "
        "needs no key. It writes evaluation.json, confusion.csv and, with matplotlib, confusion.png.",
        "ppvit evaluate --checkpoint runs/cloud/checkpoint.npz --input encrypted --split test --output evaluation",
        "ppvit evaluate --checkpoint tuned.npz --tfds cifar10 --output evaluation",
        "ppvit evaluate --checkpoint tuned.npz --csv images.csv --output evaluation",
    )
    model_outputs.add_model(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input",
        metavar="PATH",
        help="folder with a folder of images for each class, or version folder of a tfds data set",
    )
    source.add_argument("--tfds", metavar="NAME", help="data set that tfds has prepared, such as cifar10")
    labeled_input.add_formats(source)
    labeled_input.add_columns(parser)
    shared.add_data_dir(parser)
    parser.add_argument(
        "--split",
        default="",
        metavar="NAME",
        help="split to evaluate, such as test, or test[:1000] for tfds (default: the only one, or the test split)",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results; it is created")
    model_outputs.add_options(parser)


def run(arguments: argparse.Namespace) -> None:
    """Measures the model on each image once, writes the results to --output, and prints a table.

    Raises:
      UserError: the arguments or files cannot be used.
    """
    output = local_path(arguments.output)
    if (output / JSON).exists():
        raise UserError(f"{output / JSON} exists: choose another folder for --output")
    model = model_outputs.open_with_head(arguments)
    resize = shared.choose_resize(arguments.resize, model.metadata.resize)
    reader = ImageReader(model.shape.image_size, resize, arguments.max_pixels)
    images, path, manifest = _open(arguments, model, reader)
    labels, class_names = _match_classes(model, images)
    started = time.monotonic()
    measured = _measure(model, images, labels, arguments.batch_size)
    seconds = time.monotonic() - started
    header = manifest.header if manifest else None
    origin = Origin(
        checkpoint=str(model.path),
        images=str(path),
        split=arguments.split,
        encryption=header.encryption if header else "none",
        key_fingerprint=header.key_fingerprint if header else None,
    )
    with results_in(arguments.output) as folder:
        names = write_evaluation(folder, measured, class_names, origin)
    count = measured.examples
    print("\n".join(_table(measured)))
    print(f"{', '.join(str(output / name) for name in names)}: {count:,} images in {seconds:.1f} s")
    model_outputs.print_messages(model, "" if header else arguments.resize, resizes=header is None)
    if absent := [row for row in range(len(class_names)) if not measured.per_class[row]["examples"]]:
        others = f" and {len(absent) - 1:,} other classes" if len(absent) > 1 else ""
        print_note(f"no image shows {printable(class_names[absent[0]])}{others}")


def _open(
    arguments: argparse.Namespace, model: SavedModel, reader: ImageReader
) -> tuple[LabeledSplit, Path, Manifest | None]:
    """Opens the images that an option names, and checks that they belong to the model.

    Returns:
      The images, the folder or file that has them, and their manifest.
    """
    if arguments.data_dir and not arguments.tfds:
        raise UserError("--data-dir needs --tfds: leave it out")
    named = labeled_input.parse_format(arguments)
    collection = named.open(labeled=True) if named else None
    if named:
        path = named.path
    elif arguments.tfds:
        path = tfds_source.find_prepared(arguments.tfds, arguments.data_dir)
    else:
        path = local_path(arguments.input)
        if not path.exists():
            raise UserError(f"there is no {path}: give a folder of images")
    manifest = collection.manifest if collection else manifests.read(path if path.is_dir() else path.parent)
    header = manifest.header if manifest else None
    model_outputs.check_images(model, path, header, allow_mismatch=arguments.allow_mismatch)
    if collection:
        return open_collection_split(collection, arguments.split, reader), path, manifest
    is_tfds = arguments.tfds or (path / "dataset_info.json").is_file()
    opened = (open_tfds_split if is_tfds else open_folder_split)(path, arguments.split, reader, manifest)
    return opened, path, manifest


def _match_classes(model: SavedModel, images: LabeledSplit) -> tuple[np.ndarray, tuple[str, ...]]:
    """Matches the classes of the images with the outputs of the model, by name.

    Returns:
      The labels by the model's outputs, in the form of `Source.labels`, and the name of each output.

    Raises:
      UserError: the images have a class that the model lacks, or neither has names for it.
    """
    outputs, present = model.metadata.class_names, images.class_names
    count, labels = model.shape.num_classes, images.source.labels
    if model.metadata.task == "multi_label" and labels.ndim == 1:
        raise UserError(
            f"{model.path} was trained on any number of labels per image, but the images have one label each: give "
            "images with several labels, such as a CSV list with labels separated by ;"
        )
    if not outputs:
        if len(present) != count:
            raise UserError(
                f"{model.path} has {count:,} outputs without names, but the images have {len(present):,} classes: give "
                "images of every class, or a model that records its class names"
            )
        print_note(f"{model.path} records no class names: its outputs are taken as the images' classes in order")
        return labels, present
    place = {name: index for index, name in enumerate(outputs)}
    if unknown := [name for name in present if name not in place]:
        others = f" and {len(unknown) - 1:,} others" if len(unknown) > 1 else ""
        shown = ", ".join(map(printable, outputs[:5])) + (", ..." if len(outputs) > 5 else "")
        raise UserError(
            f"the images have the class {unknown[0]!r}{others}, which {model.path} lacks (its classes are {shown}): "
            "rename the images' classes, or give another model"
        )
    places = np.array([place[name] for name in present], np.int32)
    if labels.ndim == 1:
        return places[labels], outputs
    matched = np.zeros((len(labels), count), labels.dtype)
    matched[:, places] = labels
    return matched, outputs


def _measure(model: SavedModel, images: LabeledSplit, labels: np.ndarray, batch_size: int) -> Measured:
    measures = make_measures("multi_label" if labels.ndim == 2 else "single_label", model.shape.num_classes)
    start = 0
    for logits in model_outputs.compute_logits(model, images.source, batch_size, "evaluating"):
        finite = np.isfinite(logits).all(axis=1)
        if not finite.all():
            name = images.name(start + int(np.argmin(finite)))
            raise UserError(
                f"the logits of {model.path} for {name} are not finite (NaN or infinity): its weights are damaged or "
                "too large, so use another checkpoint"
            )
        measures.add(logits, labels[start : start + len(logits)])
        start += len(logits)
    return measures.compute()


def _table(measured: Measured) -> list[str]:
    """Returns the lines of a short table of the measures that are defined."""
    rows = [("images", f"{measured.examples:,}")]
    for name, value in measured.values.items():
        if value is not None:
            rows.append((name.replace("_", " "), f"{value:.4f}" if name in _NUMBERS else f"{value:.2%}"))
    return [f"{title:<24}{text:>10}" for title, text in rows]
