"""Matching of a model and images: both have to name the same encryption and key."""

import dataclasses

from ppvit_jax.checkpoint import Metadata
from ppvit_jax.data.manifest import Header
from ppvit_jax.errors import UserError

# Assumed for images without a manifest.
PLAIN = Header(encryption="none", key_fingerprint=None, image_size=0, block_size=0, origin="")


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """Model that was read from a checkpoint.

    checkpoint: its name, for messages.
    metadata: of the checkpoint.
    image_size, patch_size: in pixels.
    """

    checkpoint: str
    metadata: Metadata
    image_size: int
    patch_size: int


@dataclasses.dataclass(frozen=True)
class LoadedImages:
    """Images that were read from a folder.

    folder: its name, for messages.
    header: of its manifest; None, a folder without a manifest, counts as plain images.
    """

    folder: str
    header: Header | None


def check_match(model: LoadedModel, images: LoadedImages, *, allow_mismatch: bool) -> None:
    """Rejects a model and images that do not belong together.

    Args:
      model: the model.
      images: the images that it is to be trained on or asked about.
      allow_mismatch: accept other keys and encryptions, as experiments on access control need it.

    Raises:
      UserError: one line with both fingerprints, or with both sizes, which nothing can override.
    """
    header, metadata = images.header or PLAIN, model.metadata
    size, patch_size = model.image_size, model.patch_size
    if header.encryption != "none" and header.image_size != size:
        raise UserError(
            f"the encrypted images in {images.folder} have {header.image_size}x{header.image_size} pixels and the "
            f"model {size}x{size}, and encrypted images cannot be resized: encrypt them with "
            f"--image-size {size}, or set the model's size to {header.image_size}"
        )
    if allow_mismatch:
        return
    if header.encryption != "none" and header.block_size != patch_size:
        raise UserError(
            f"the images in {images.folder} are encrypted with blocks of {header.block_size}x{header.block_size}, and "
            f"the model has patches of {patch_size}x{patch_size}: encrypt them with --block-size {patch_size}"
        )
    if (metadata.encryption, metadata.key_fingerprint) == (header.encryption, header.key_fingerprint):
        return
    model_state = (
        f"is adapted to {metadata.encryption!r} with the key of fingerprint {metadata.key_fingerprint}"
        if metadata.encryption != "none"
        else "is a plain model"
    )
    if header.encryption != "none":
        images_state = f"are encrypted by {header.encryption!r} with the key of fingerprint {header.key_fingerprint}"
    elif images.header:
        images_state = "are plain"
    else:
        images_state = "are plain, as far as there is no manifest.json that says otherwise"
    raise UserError(
        f"{model.checkpoint} {model_state}, and the images in {images.folder} {images_state}: use a model and images "
        "of the same key and encryption, or, for an experiment, --allow-mismatch"
    )
