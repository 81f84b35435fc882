"""The command `ppvit rekey`: moves an adapted model from one key to another."""

import argparse

from ppvit_jax import adaptation
from ppvit_jax.commands.shared import adapted_model
from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.commands.shared.output import new_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments and description."""
    describe(
        parser,
        "Moves an adapted model, fine-tuned or not, from one key to another. The owner runs it; no plain model is "
        "written in between.",
        "ppvit rekey --key secret.key --new-key new.key --checkpoint adapted.npz --output rekeyed.npz",
    )
    shared.add_key(parser, "", "key file that the model is adapted with")
    shared.add_key(parser, "new-", "key file to adapt the model with")
    adapted_model.add_files(parser, "adapted")
    adapted_model.add_lost_encryption(parser)


def run(arguments: argparse.Namespace) -> None:
    """Moves the model from one key to another in one step; no plain model exists in between.

    Raises:
      UserError: the arguments or files cannot be used.
    """
    new_path(arguments.output, "the checkpoint")
    old = shared.open_key(arguments.key, arguments.passphrase_file)
    new = shared.open_key(arguments.new_key, arguments.new_passphrase_file)
    model = adapted_model.open_adapted(arguments, old)
    rekeyed = adaptation.rekey(model.params, model.permutations(old), model.permutations(new))
    adapted_model.write_model(arguments, model.with_params(rekeyed), new)
