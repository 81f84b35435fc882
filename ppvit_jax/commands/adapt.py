"""The command `ppvit adapt`: adapts a plain model to encrypted images."""

import argparse

from ppvit_jax import adaptation, checkpoint, models
from ppvit_jax.audit import public_checkpoints
from ppvit_jax.command_line import Number
from ppvit_jax.commands.shared import adapted_model
from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.commands.shared.encryption_choices import adaptable_encryptions
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.commands.shared.output import new_path
from ppvit_jax.errors import SIDE, UserError, print_warning


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments and description."""
    describe(
        parser,
        "Adapts a plain model to encrypted images: permutes its weights with the key, so that the model computes on "
        "encrypted images what it computes on plain ones. The owner runs it, and gives the file that it writes to the "
        "cloud for fine-tuning.",
        "ppvit adapt --key secret.key --checkpoint ViT-B_16.npz --output adapted.npz",
        "ppvit adapt --key secret.key --checkpoint embedded --output adapted.npz",
    )
    shared.add_key(parser)
    adapted_model.add_files(parser, "plain")
    default = shared.DEFAULT_ENCRYPTION
    shared.add_encryption(parser, adaptable_encryptions(), "encryption of the images", "default: %(default)s", default)
    shared.add_base_is_public(parser)
    parser.add_argument(
        "--image-size",
        action=Number,
        range=SIDE,
        metavar="PIXELS",
        help="side of the encrypted images in pixels; the position embedding is resized to another one than the "
        "model's (default: the model's)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Fits the model to the images' size and normalization, permutes two tensors, and writes the adapted model.

    Raises:
      UserError: the arguments or files cannot be used.
    """
    new_path(arguments.output, "the checkpoint")
    key = shared.open_key(arguments.key, arguments.passphrase_file)
    path = checkpoint.resolve(arguments.checkpoint)
    model = adapted_model.open_model(path, arguments.image_size)
    if model.metadata.encryption != "none":
        raise UserError(
            f"{path} is already adapted to {model.metadata.encryption} with the key of fingerprint "
            f"{model.metadata.key_fingerprint}: use ppvit rekey to change the key, or ppvit restore first"
        )
    model.check_trained_images()
    original = model.params
    model = model.with_standard_normalization("because encrypted images are normalized so")
    model = model.with_encryption(shared.open_encryption(arguments.encryption, model.shape.patch_size).spec)
    adapted = adaptation.adapt(model.params, model.permutations(key))
    adapted_model.write_model(arguments, model.with_params(adapted), key)
    if (shown := models.family_of(model.shape).in_the_clear) and model.permutations(key).block is not None:
        print_warning(f"{arguments.output} shows {shown}: only the permutation of pixels stays secret")
    public_name = public_checkpoints.identify(path, original)
    if public_name is None and arguments.base_is_public is None and checkpoint.is_remote(arguments.checkpoint):
        public_name = arguments.checkpoint
    # The warning comes last, so that a mistake prints one line alone.
    shared.warn_of_public_base(arguments, public_name)
