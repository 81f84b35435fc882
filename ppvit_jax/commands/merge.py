"""The command `ppvit merge`: makes a whole model of a base and a delta."""

import argparse

from ppvit_jax import checkpoint, models
from ppvit_jax.commands.shared.adapted_model import READABLE
from ppvit_jax.commands.shared.deltas import open_merged
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.commands.shared.output import new_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments and description."""
    describe(
        parser,
        "Makes a whole model of a base and a delta, the small checkpoint that LoRA and the linear probe write. Owner "
        "and cloud can run it: it needs no key. The model takes the images that the base takes, so that it is adapted "
        "if the base is; the owner makes a plain model of an adapted base by ppvit restore.",
        "ppvit merge --base adapted.npz --delta runs/cloud/checkpoint.npz --output tuned_adapted.npz",
    )
    parser.add_argument(
        "--base",
        required=True,
        metavar="BASE",
        help=f"checkpoint that the run started from, as config.checkpoint names it: {READABLE}",
    )
    parser.add_argument("--delta", required=True, metavar="DELTA", help="checkpoint.npz that the run wrote")
    parser.add_argument("--output", required=True, metavar="OUT", help="checkpoint to write, a .npz that is new")


def run(arguments: argparse.Namespace) -> None:
    """Writes the whole model, and prints a line that describes it.

    Raises:
      UserError: the files cannot be read or written, or do not belong together.
    """
    output = new_path(arguments.output, "the checkpoint")
    model = open_merged(checkpoint.resolve(arguments.delta), arguments.base)
    checkpoint.write(output, model.params, model.metadata)
    metadata, size = model.metadata, model.shape.image_size
    name = metadata.model or models.model_name(model.shape)
    adapted = f"adapted to {metadata.encryption} with the key of fingerprint {metadata.key_fingerprint}"
    print(f"{output}: {name}, {size}x{size}, {adapted if metadata.encryption != 'none' else 'a plain model'}")
