"""Encryptions of images with a secret key, one file a method: pure functions on numpy and JAX arrays.

method = encryption.create("etc:shared=True", block_size=16)
secret = method.derive(key, height=224, width=224)
encrypted = method.encrypt(images, secret)  # and decrypt
"""

from typing import Any

from ppvit_jax.encryption.block_pixel_negative_positive import BlockPixelNegativePositive
from ppvit_jax.encryption.block_scrambling import BlockScrambling
from ppvit_jax.encryption.block_scrambling_pixel_shuffling import BlockScramblingPixelShuffling
from ppvit_jax.encryption.color_neuracrypt import ColorNeuraCrypt
from ppvit_jax.encryption.encryption_then_compression import EncryptionThenCompression
from ppvit_jax.encryption.extended_learnable import ExtendedLearnableEncryption
from ppvit_jax.encryption.learnable import LearnableEncryption
from ppvit_jax.encryption.method import Encryption, Randomness, Secret, parse
from ppvit_jax.encryption.negative_positive import NegativePositive
from ppvit_jax.encryption.neuracrypt import NeuraCrypt
from ppvit_jax.encryption.permutations import Permutations, apply_index, gather_index, gather_mask
from ppvit_jax.encryption.pixel_encryption import PixelEncryption
from ppvit_jax.encryption.pixel_position_shuffling import PixelPositionShuffling
from ppvit_jax.encryption.pixel_shuffling import PixelShuffling
from ppvit_jax.encryption.restricted import RestrictedPermutations

METHODS: dict[str, type[Encryption]] = {
    method.name: method
    for method in (
        BlockScrambling,
        PixelShuffling,
        BlockScramblingPixelShuffling,
        RestrictedPermutations,
        NegativePositive,
        BlockPixelNegativePositive,
        PixelPositionShuffling,
        EncryptionThenCompression,
        PixelEncryption,
        LearnableEncryption,
        ExtendedLearnableEncryption,
        NeuraCrypt,
        ColorNeuraCrypt,
    )
}


def create(spec: str, block_size: int) -> Encryption | None:
    """Reads an encryption such as "bs+ps" or "etc:shared=True,sub_block_size=8"; None for "none".

    Raises:
      UserError: an unknown name, option or value.
    """
    return None if spec == "none" else parse(spec, METHODS, block_size)


def usual_block_size(spec: str, patch_size: int) -> int:
    """The side of a method's blocks as its authors use it: 4 pixels for LE and ELE, else the model's patch size."""
    return 4 if spec.partition(":")[0] in (LearnableEncryption.name, ExtendedLearnableEncryption.name) else patch_size


def encrypt(images: Any, permutations: Permutations, patch_size: int) -> Any:
    """Moves and inverts values by `permutations`, fused into one gather.

    Args:
      images: numpy or JAX array [..., height, width, channels], uint8, or floating point if no value is inverted.
      permutations: see `Permutations`.
      patch_size: side of a block in pixels.

    Returns:
      An array like `images`.

    Raises:
      UserError: sides that are not multiples of `patch_size`, or permutations of other sizes.
    """
    height, width, channels = images.shape[-3:]
    size = {"height": height, "width": width, "patch_size": patch_size, "channels": channels}
    return apply_index(images, gather_index(permutations, **size), gather_mask(permutations, **size))


def decrypt(images: Any, permutations: Permutations, patch_size: int) -> Any:
    """The inverse of `encrypt`, with the same arguments and errors."""
    return encrypt(images, permutations.inverse(), patch_size)


__all__ = [
    "METHODS",
    "Encryption",
    "Permutations",
    "Randomness",
    "Secret",
    "apply_index",
    "create",
    "decrypt",
    "encrypt",
    "gather_index",
    "gather_mask",
]
