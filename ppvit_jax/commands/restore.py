"""The command `ppvit restore`: turns an adapted model back into a plain one."""

import argparse

from ppvit_jax import adaptation
from ppvit_jax.commands.shared import adapted_model, deltas
from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.commands.shared.output import new_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments and description."""
    describe(
        parser,
        "Turns an adapted model, fine-tuned or not, back into a plain one. The owner runs it on the checkpoint that "
        "the cloud returns; the model that it writes takes plain images.",
        "ppvit restore --key secret.key --checkpoint runs/cloud/checkpoint.npz --output tuned.npz",
        "ppvit restore --key secret.key --checkpoint runs/cloud/checkpoint.npz --output tuned/",
        "ppvit restore --key secret.key --base ViT-B_16.npz --checkpoint delta.npz --output tuned.npz",
    )
    shared.add_key(parser)
    adapted_model.add_files(parser, "adapted", or_folder=True)
    deltas.add_base(parser, "adapted model that the cloud started from, or the plain model that it was made from")
    adapted_model.add_lost_encryption(parser)


def run(arguments: argparse.Namespace) -> None:
    """Undoes the adaptation, also of a fine-tuned model, and writes the model for plain images.

    Raises:
      UserError: the arguments or files cannot be used.
    """
    new_path(arguments.output, "the checkpoint")
    key = shared.open_key(arguments.key, arguments.passphrase_file)
    open_any = deltas.open_adapted_delta if arguments.base else adapted_model.open_adapted
    model = open_any(arguments, key)
    adapted_model.is_folder(arguments.output, model)
    restored = adaptation.restore(model.params, model.permutations(key))
    adapted_model.write_model(arguments, model.with_params(restored).with_own_normalization(), None)
