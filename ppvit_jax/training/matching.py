"""Check that a model and images match: both must name the same encryption and key."""

import dataclasses

from ppvit_jax.checkpoint import Metadata, describe_images
from ppvit_jax.data.manifest import Header
from ppvit_jax.errors import UserError

# Assumed for images without a manifest.
PLAIN = Header(encryption="none", key_fingerprint=None, image_size=0, block_size=0, origin="")


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """Model that was read from a checkpoint.

    Attributes:
      checkpoint: name of the checkpoint, for messages.
      metadata: metadata of the checkpoint.
      image_size: side of an image, in pixels.
      patch_size: side of a patch, in pixels.
    """

    checkpoint: str
    metadata: Metadata
    image_size: int
    patch_size: int


@dataclasses.dataclass(frozen=True)
class LoadedImages:
    """Images that were read from a folder.

    Attributes:
      folder: name of the folder, for messages.
      header: header of its manifest, or None if there is no manifest; images without a manifest count as plain.
    """

    folder: str
    header: Header | None


def check_match(model: LoadedModel, images: LoadedImages, *, allow_mismatch: bool) -> None:
    """Rejects a model and images that do not match.

    Args:
      model: the model.
      images: images for training or prediction.
      allow_mismatch: accept different keys and encryptions, for experiments on access control.

    Raises:
      UserError: encryption, key or sizes differ; the message shows both sides. `allow_mismatch` does not permit a
        different size of encrypted images.
    """
    header, metadata = images.header or PLAIN, model.metadata
    size, block_size = model.image_size, metadata.images_block_size or model.patch_size
    if header.encryption != "none" and header.image_size != size:
        raise UserError(
            f"the encrypted images in {images.folder} have {header.image_size}x{header.image_size} pixels but the "
            f"model takes {size}x{size}, and encrypted images cannot be resized: encrypt them with "
            f"--image-size {size}, or set the image size of the model to {header.image_size}"
        )
    if allow_mismatch:
        return
    if header.encryption != "none" and header.block_size != block_size:
        model_state = (
            f"was trained on images in blocks of {block_size}x{block_size}"
            if metadata.images_block_size
            else f"has patches of {block_size}x{block_size}"
        )
        raise UserError(
            f"the images in {images.folder} are encrypted in blocks of {header.block_size}x{header.block_size}, but "
            f"the model {model_state}: encrypt them with --block-size {block_size}"
        )
    if metadata.images == (header.encryption, header.key_fingerprint):
        return
    if header.encryption != "none":
        images_state = f"are encrypted with {header.encryption!r} (key fingerprint {header.key_fingerprint})"
    elif images.header:
        images_state = "are plain"
    else:
        images_state = "count as plain, because they have no manifest.json"
    raise UserError(
        f"{model.checkpoint} {describe_training(metadata)}, but the images in {images.folder} {images_state}: use a "
        "model and images with the same key and encryption, or add --allow-mismatch for an experiment"
    )


def describe_training(metadata: Metadata) -> str:
    """Describes the images that a model is for, such as "is a plain model", with a verb for a message."""
    if metadata.images_encryption:
        return f"was trained on {describe_images(*metadata.images)}"
    if metadata.encryption != "none":
        return f"is adapted to {metadata.encryption!r} (key fingerprint {metadata.key_fingerprint})"
    return "is a plain model"
