"""Image encryptions with a secret key, one file per method: pure functions on numpy and JAX arrays.

Example:
  method = encryption.create("etc:shared=True", block_size=16)
  secret = method.derive(key, height=224, width=224)
  encrypted = method.encrypt(images, secret)
  plain = method.decrypt(encrypted, secret)
"""

import dataclasses

from ppvit_jax.encryption.block_pixel_negative_positive import BlockPixelNegativePositive
from ppvit_jax.encryption.block_scrambling import BlockScrambling
from ppvit_jax.encryption.block_scrambling_pixel_shuffling import BlockScramblingPixelShuffling
from ppvit_jax.encryption.blockwise import Gather, make_secret
from ppvit_jax.encryption.color_neuracrypt import ColorNeuraCrypt
from ppvit_jax.encryption.encryption_then_compression import EncryptionThenCompression
from ppvit_jax.encryption.extended_learnable import ExtendedLearnableEncryption
from ppvit_jax.encryption.learnable import LearnableEncryption
from ppvit_jax.encryption.method import Encryption, Randomness, Secret
from ppvit_jax.encryption.negative_positive import NegativePositive
from ppvit_jax.encryption.neuracrypt import NeuraCrypt
from ppvit_jax.encryption.permutations import Array, Permutations
from ppvit_jax.encryption.pixel_encryption import PixelEncryption
from ppvit_jax.encryption.pixel_position_shuffling import PixelPositionShuffling
from ppvit_jax.encryption.pixel_shuffling import PixelShuffling
from ppvit_jax.encryption.restricted import RestrictedPermutations
from ppvit_jax.errors import UserError

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
    """Returns the encryption that `parse` reads, or None for "none".

    Args:
      spec: "none", or a spec as for `parse`.
      block_size: side of a block in pixels.

    Raises:
      UserError: see `parse`.
    """
    return None if spec == "none" else parse(spec, block_size)


def parse(spec: str, block_size: int) -> Encryption:
    """Reads the spec of an encryption: "NAME" or "NAME:option=value,option=value".

    Args:
      spec: a method's name, and the options that differ from their defaults; for example "bs+ps" or
        "etc:shared=True,sub_block_size=8".
      block_size: side of a block in pixels.

    Raises:
      UserError: the spec is "none", which is not a method; the name, an option or a value is unknown; or the method
        does not support this block size.
    """
    name, _, rest = spec.partition(":")
    if spec == "none":
        raise UserError(f"encryption none leaves images plain: use one of {', '.join(METHODS)}")
    if name not in METHODS:
        raise UserError(f"unknown encryption {spec!r}: use none or one of {', '.join(METHODS)}")
    method = METHODS[name]
    defaults = {field.name: field.default for field in dataclasses.fields(method) if field.name != "block_size"}
    options = {}
    for assignment in filter(None, rest.split(",")):
        option, equals, text = assignment.partition("=")
        field = method.spellings.get(option, option)
        if not equals or field not in defaults:
            shown = {field: spelling for spelling, field in method.spellings.items()}
            choices = ", ".join(f"{shown.get(name, name)}={value}" for name, value in defaults.items()) or "none"
            raise UserError(
                f"encryption {spec!r}: {name} has no option {assignment!r}; its options and defaults are: {choices}"
            )
        options[field] = _read_value(spec, option, text, type(defaults[field]))
    return method(block_size=block_size, **options)


def usual_block_size(spec: str, patch_size: int) -> int:
    """Returns the block size that the method's authors use, such as 4 pixels for LE, or else the model's patch size."""
    method = METHODS.get(spec.partition(":")[0], Encryption)
    return method.usual_block_size or patch_size


def derive_permutations(randomness: Randomness, spec: str, *, image_size: int, block_size: int) -> Permutations:
    """Derives from a key the permutations by which a model absorbs an encryption of square images.

    A model absorbs an encryption if it can be adapted to it exactly (see `ppvit_jax.adaptation`).

    Args:
      randomness: a `ppvit_jax.keys.SecretKey`.
      spec: as for `create`; "none" gives the identity.
      image_size: side of an image in pixels.
      block_size: side of a block in pixels, which is the patch size of the model.

    Raises:
      UserError: the encryption is unknown, no model can absorb it, or the image size is not a multiple of the block
        size.
    """
    if image_size <= 0 or block_size <= 0 or image_size % block_size:
        raise UserError(f"image size {image_size} is not a multiple of the block size {block_size}")
    if spec == "none":
        return Permutations()
    return parse(spec, block_size).absorb(randomness, height=image_size, width=image_size)


def encrypt(images: Array, permutations: Permutations, block_size: int = 0, *, patch_size: int = 0) -> Array:
    """Permutes and inverts the values of images, in one gather.

    Args:
      images: [..., height, width, channels], a numpy or JAX array of uint8, or of any dtype if no value is inverted.
      permutations: see `Permutations`.
      block_size: side of a block in pixels.
      patch_size: the former name of `block_size`, still accepted.

    Returns:
      An array of the shape and dtype of `images`. Numpy and JAX give identical bits.

    Raises:
      UserError: the image's sides are not multiples of `block_size`, or the permutations are for another size.
    """
    height, width, channels = images.shape[-3:]
    secret = make_secret(permutations, height, width, block_size or patch_size, channels)
    return Gather(block_size=1).encrypt(images, secret)


def decrypt(images: Array, permutations: Permutations, block_size: int = 0, *, patch_size: int = 0) -> Array:
    """Inverts `encrypt`, with the same arguments and errors."""
    return encrypt(images, permutations.inverse(), block_size or patch_size)


def _read_value(spec: str, option: str, text: str, dtype: type) -> bool | int | str:
    try:
        if dtype is bool:
            return {"True": True, "False": False}[text]
        return dtype(text)
    except (ValueError, KeyError):
        choices = "True or False" if dtype is bool else "a whole number"
        raise UserError(f"encryption {spec!r}: {option} is {text!r}: give {choices}") from None


__all__ = [
    "METHODS",
    "Encryption",
    "Permutations",
    "Randomness",
    "Secret",
    "create",
    "decrypt",
    "derive_permutations",
    "encrypt",
    "parse",
    "usual_block_size",
]
