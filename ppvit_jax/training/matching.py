"""Whether a model and images belong together: what each says of its encryption and key."""

from ppvit_jax.checkpoint import Metadata
from ppvit_jax.data.manifest import Header
from ppvit_jax.errors import UserError

# What images are of which nothing says otherwise.
PLAIN = Header(encryption="none", key_fingerprint=None, image_size=0, block_size=0, origin="")


def check_match(
    model: Metadata,
    images: Header | None,
    *,
    checkpoint: str,
    folder: str,
    image_size: int,
    patch_size: int,
    allow_mismatch: bool,
) -> None:
    """Refuses a model and images that do not belong together.

    Args:
      model: what the checkpoint says of itself.
      images: what the images' folder says of them; None, a folder without a manifest, counts as plain images.
      checkpoint, folder: their names, for messages.
      image_size, patch_size: of the model, in pixels.
      allow_mismatch: accept other keys and encryptions, as experiments on access control need it.

    Raises:
      UserError: one line with both fingerprints, or with both sizes, which nothing can override.
    """
    header = images or PLAIN
    if header.encryption != "none" and header.image_size != image_size:
        raise UserError(
            f"the encrypted images in {folder} have {header.image_size}x{header.image_size} pixels and the model "
            f"{image_size}x{image_size}, and encrypted images cannot be resized: encrypt them with "
            f"--image-size {image_size}, or set the model's size to {header.image_size}"
        )
    if allow_mismatch:
        return
    if header.encryption != "none" and header.block_size != patch_size:
        raise UserError(
            f"the images in {folder} are encrypted with blocks of {header.block_size}x{header.block_size}, and the "
            f"model has patches of {patch_size}x{patch_size}: encrypt them with --block-size {patch_size}"
        )
    if (model.encryption, model.key_fingerprint) == (header.encryption, header.key_fingerprint):
        return
    said = (
        f"{checkpoint} is adapted to {model.encryption!r} with the key of fingerprint {model.key_fingerprint}"
        if model.encryption != "none"
        else f"{checkpoint} is a plain model"
    )
    if header.encryption != "none":
        found = f"are encrypted by {header.encryption!r} with the key of fingerprint {header.key_fingerprint}"
    else:
        found = "are plain" if images else "are plain, as far as there is no manifest.json that says otherwise"
    raise UserError(
        f"{said}, and the images in {folder} {found}: use a model and images of the same key and encryption, or, for "
        "an experiment, --allow-mismatch"
    )
