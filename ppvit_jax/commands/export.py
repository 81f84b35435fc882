"""The command `ppvit export`: writes a model as a program for other machines, as StableHLO or ONNX."""

import argparse
import time
from pathlib import Path

from ppvit_jax import checkpoint, export
from ppvit_jax.command_line import Number
from ppvit_jax.commands.shared.adapted_model import READABLE, SavedModel, open_model
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.commands.shared.output import new_path
from ppvit_jax.errors import SIDE, UserError, print_note, require
from ppvit_jax.export.onnx_file import check_shape, weights_path

_STABLEHLO, _ONNX = ".stablehlo", ".onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments and description."""
    describe(
        parser,
        "Exports a model as one program with its weights, which needs neither ppvit nor a key: as StableHLO for JAX on "
        "a CPU, an NVIDIA GPU or a TPU, or as ONNX for onnxruntime and others. It takes a batch of any number of "
        "images, uint8 [batch, height, width, 3] at the model's size, normalizes them, and returns the logits. It does "
        "not resize images. The program of an adapted model takes encrypted images. Owner and cloud can run the "
        "command; it reads a checkpoint and writes one file.",
        "ppvit export --checkpoint tuned.npz --output tuned.stablehlo",
        "ppvit export --checkpoint runs/cloud/checkpoint.npz --output adapted.onnx",
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="CKPT",
        help=f"checkpoint of a model with a head: {READABLE}; hf:OWNER/NAME names one on the Hugging Face hub",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="new file to write: .stablehlo, or .onnx for a Vision Transformer, which needs pip install "
        "'ppvit-jax[onnx]'",
    )
    parser.add_argument(
        "--image-size",
        action=Number,
        range=SIDE,
        metavar="PIXELS",
        help="side of the images in pixels, for a model of plain images, whose positions are then interpolated "
        "(default: the checkpoint's)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="dtype of the matrix products; bfloat16 halves a .stablehlo file, and an .onnx is always in float32 "
        "(default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the program to --output.

    Raises:
      UserError: the arguments or files cannot be used.
    """
    output = new_path(arguments.output, "the exported model")
    if output.suffix not in (_STABLEHLO, _ONNX):
        raise UserError(f"--output {output} ends neither in {_STABLEHLO} nor in {_ONNX}: choose one of them")
    if output.suffix == _ONNX:
        require("an .onnx file", "onnx", "onnx", instead=f"give --output a name that ends with {_STABLEHLO}")
    started = time.monotonic()
    path = checkpoint.resolve(arguments.checkpoint)
    model = open_model(path, arguments.image_size, dtype=arguments.dtype)
    if not model.shape.num_classes:
        raise UserError(f"{path} has no head, so it has no logits: fine-tune it first")
    _check_size(model)
    if output.suffix == _ONNX:
        export.write_onnx(output, check_shape(model.shape), model.params, model.metadata)
    else:
        export.write_stablehlo(output, model.shape, model.params, model.statistics, model.metadata)
    seconds = time.monotonic() - started
    _print_messages(model, output, seconds)


def _check_size(model: SavedModel) -> None:
    """Checks that a model of encrypted images keeps its size, because its positions may be permuted.

    Raises:
      UserError: --image-size is another one.
    """
    recorded = model.metadata.image_size
    if model.metadata.images[0] != "none" and (model.notes or recorded not in (0, model.shape.image_size)):
        raise UserError(
            f"{model.path} takes encrypted images, and cannot be resized to --image-size {model.shape.image_size}: "
            "leave it out, or restore the model first"
        )


def _print_messages(model: SavedModel, output: Path, seconds: float) -> None:
    description = export.describe(model.shape, model.metadata)
    files = [file for file in (output, weights_path(output)) if file.exists()]
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    size = model.shape.image_size
    print(f"{output}: {description['model']}, {size}x{size}, {megabytes:,.1f} MB in {seconds:.1f} s")
    assumptions = checkpoint.list_assumptions(
        model.path,
        model.metadata,
        normalization=checkpoint.describe_normalization(*model.metadata.normalization),
        classes="class numbers from 0",
    )
    for note in (*assumptions, *model.notes):
        print_note(note)
    print_note(f"the program takes {description['images']} of {size}x{size} pixels, as uint8, and does not resize them")
    if len(files) > 1:
        print_note(f"the weights are in {files[1]}, because they have more than 2 GB: keep both files in one folder")
