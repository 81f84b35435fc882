"""Sizes of the images and blocks that a model takes: for `ppvit encrypt`, from the model's checkpoint."""

import argparse
from typing import TYPE_CHECKING

from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.data.images import RESIZES
from ppvit_jax.errors import UserError

if TYPE_CHECKING:
    from ppvit_jax.keys import SecretKey

_TITLES = {"image_size": "side of an image", "block_size": "side of a patch"}


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Adds --checkpoint, the model that --image-size, --block-size and --resize are read from."""
    parser.add_argument(
        "--checkpoint",
        metavar="CKPT",
        help="checkpoint of the model that the images are for, plain or adapted, to take its sizes and its way of "
        "resizing; embedded names the small one in the package (default: use --image-size and --block-size)",
    )


def settle(arguments: argparse.Namespace, key: "SecretKey") -> list[str]:
    """Sets the arguments' sizes and way of resizing where the user gave none: to the model's, or to the defaults.

    Args:
      arguments: those of `add_checkpoint`, `add_sizes`, `add_resize` and `add_encryption`.
      key: the key that encrypts the images.

    Returns:
      Notes on the values that were assumed, for the user.

    Raises:
      UserError: the checkpoint cannot be used, or it contradicts an argument or the key; the message has both values.
    """
    if arguments.checkpoint:
        return _follow_model(arguments, key)
    arguments.resize = arguments.resize or RESIZES[0]
    defaults = {"image_size": shared.DEFAULT_IMAGE_SIZE, "block_size": shared.DEFAULT_BLOCK_SIZE}
    assumed = {name: value for name, value in defaults.items() if getattr(arguments, name) is None}
    for name, value in assumed.items():
        setattr(arguments, name, value)
    texts = {"image_size": "images of {0}x{0} pixels", "block_size": "blocks of {0}x{0} pixels"}
    if not assumed:
        return []
    described = " in ".join(texts[name].format(value) for name, value in assumed.items())
    options = " and ".join(_flag(name) for name in assumed)
    return [f"{described}, as ViT-B/16 takes them, by default: give --checkpoint, or {options}, for another model"]


def _follow_model(arguments: argparse.Namespace, key: "SecretKey") -> list[str]:
    # Imported here, because encrypting without a checkpoint needs no library of tensors.
    from ppvit_jax import checkpoint
    from ppvit_jax.commands.shared.adapted_model import open_model, warn_of_resize

    model = open_model(checkpoint.resolve(arguments.checkpoint))
    metadata, path = model.metadata, model.path
    sizes = {
        "image_size": model.shape.image_size,
        "block_size": metadata.images_block_size or model.shape.patch_size,
    }
    for name, size in sizes.items():
        if getattr(arguments, name) not in (None, size):
            raise UserError(
                f"{_flag(name)} is {getattr(arguments, name)}, but {path} has {size} as the {_TITLES[name]} in pixels: "
                f"leave {_flag(name)} or --checkpoint out"
            )
        setattr(arguments, name, size)
    if metadata.images[0] != "none":
        spec = shared.open_encryption(arguments.encryption, arguments.block_size).spec
        if (spec, key.fingerprint) != metadata.images:
            raise UserError(
                f"{path} takes {checkpoint.describe_images(*metadata.images)}, but --encryption and --key give "
                f"{checkpoint.describe_images(spec, key.fingerprint)}: use the model's, or leave --checkpoint out"
            )
    warn_of_resize(model, arguments.resize)
    assumptions = checkpoint.list_assumptions(path, metadata, resize="" if arguments.resize else "center_crop")
    arguments.resize = shared.choose_resize(arguments.resize, metadata.resize)
    return assumptions


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
