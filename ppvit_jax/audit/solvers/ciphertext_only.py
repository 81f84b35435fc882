"""Recovers a key from encrypted images alone, all encrypted with that key.

Correlations between values show how they moved inside the blocks (`correlation`). Then the blocks are assembled like a
jigsaw puzzle (`jigsaw`): Chuman and Kiya (arXiv 2211.02369; Information 2023) attack block scrambling with pixel
shuffling so. Encryptions with separate keys for blocks or pixels have separate solvers.
"""

import dataclasses

import numpy as np

from ppvit_jax.audit.solvers import channel_keys, correlation, jigsaw, nibbles, turned_blocks
from ppvit_jax.audit.solvers.symmetry import SYMMETRIES, transform
from ppvit_jax.encryption import Permutations
from ppvit_jax.encryption.block_pixel_negative_positive import BlockPixelNegativePositive
from ppvit_jax.encryption.block_scrambling import BlockScrambling
from ppvit_jax.encryption.block_scrambling_pixel_shuffling import BlockScramblingPixelShuffling
from ppvit_jax.encryption.blockwise import make_secret
from ppvit_jax.encryption.encryption_then_compression import EncryptionThenCompression
from ppvit_jax.encryption.learnable import LearnableEncryption
from ppvit_jax.encryption.method import Encryption, Secret
from ppvit_jax.encryption.negative_positive import NegativePositive
from ppvit_jax.encryption.permutations import split_blocks
from ppvit_jax.encryption.pixel_encryption import PixelEncryption
from ppvit_jax.encryption.pixel_position_shuffling import PixelPositionShuffling
from ppvit_jax.encryption.pixel_shuffling import PixelShuffling
from ppvit_jax.encryption.restricted import RestrictedPermutations
from ppvit_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class _Unknown:
    """The parts of a block-wise method's key that the attacker has to find."""

    blocks: bool
    pixels: bool
    signs: bool


def solve(method: Encryption, encrypted: np.ndarray, *, reference: np.ndarray | None = None, seed: int = 0) -> Secret:
    """Estimates the secret that encrypted the images.

    Args:
      method: the encryption method, with its block size; it has no key.
      encrypted: uint8 [n, side, side, 3], square images encrypted with one key.
      reference: uint8 [m, side, side, 3], other plain images with similar content. Only methods that move values alike
        in all blocks use them.
      seed: seed of the random choices.

    Returns:
      An estimate, up to a symmetry that is the same for all images (see `scoring`). `method.decrypt(encrypted, secret)`
      shows the recovered images.

    Raises:
      UserError: there is no ciphertext-only attack on this method, or the images do not fit it.
    """
    if isinstance(method, PixelEncryption) and not method.per_image:
        return channel_keys.solve(method, encrypted, seed=seed)
    if isinstance(method, EncryptionThenCompression) and not method.shared:
        return turned_blocks.solve(method, encrypted, seed=seed)
    if isinstance(method, LearnableEncryption):
        return nibbles.solve(method, encrypted)
    unknown = _unknown(method)
    if unknown is None:
        raise UserError(
            f"there is no attack on encrypted images alone for {method.spec}, which proves nothing about its security: "
            "see docs/threat_model.md"
        )
    size = encrypted.shape[1]
    blocks = split_blocks(encrypted, method.block_size)
    side = size // method.block_size
    values = blocks.reshape(-1, blocks.shape[-1])
    pixel = negative = None
    if unknown.pixels:
        reference_values = reference
        if reference_values is not None:
            reference_values = split_blocks(reference_values, method.block_size).reshape(-1, values.shape[-1])
        # Restricted permutations leave most values in place.
        start = np.arange(values.shape[-1]) if isinstance(method, RestrictedPermutations) else None
        arrangement = correlation.arrange(
            values, method.block_size, inverted=unknown.signs, start=start, reference=reference_values, seed=seed
        )
        pixel, negative = arrangement.pixel, arrangement.negative
    elif unknown.signs:
        negative = correlation.signs(correlation.correlate(values))
    upright = blocks if negative is None else blocks ^ (negative * np.uint8(255))
    upright = upright if pixel is None else upright[..., np.argsort(pixel)]
    upright = upright.reshape(*upright.shape[:2], method.block_size, method.block_size, 3)
    block = None
    if unknown.blocks:
        block = np.argsort(jigsaw.assemble(upright, side, side)).astype(np.int32)
    elif pixel is not None:
        pixel = _turn_inside(pixel, upright, side)
    if negative is not None and not negative.any():
        negative = None
    return make_secret(Permutations(block, pixel, negative), size, size, method.block_size)


def recover(
    method: Encryption, encrypted: np.ndarray, *, shown: int, reference: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, Secret | None]:
    """Decrypts the first images with an estimate of the secret.

    Args:
      method, encrypted, reference, seed: as for `solve`.
      shown: the largest number of images to decrypt.

    Returns:
      The decrypted images, uint8 [at most shown, side, side, 3], and the estimate; None instead of the estimate if
      every image has its own secret.

    Raises:
      UserError: see `solve`.
    """
    first = encrypted[:shown]
    if isinstance(method, PixelEncryption) and method.per_image:
        alone = dataclasses.replace(method, keys="shared")
        secrets = channel_keys.solve_each(method, first)
        return np.stack([alone.decrypt(image, secret) for image, secret in zip(first, secrets, strict=True)]), None
    secret = solve(method, encrypted, reference=reference, seed=seed)
    return method.decrypt(first, secret), secret


def _turn_inside(pixel: np.ndarray, upright: np.ndarray, side: int) -> np.ndarray:
    """Turns the inside of all blocks, which stay in place, so that their borders fit."""
    size = upright.shape[2]
    places = np.arange(size * size)
    order = np.arange(side * side)
    best = (np.inf, places)
    for flip, turn in SYMMETRIES:
        view = transform(places.reshape(size, size), flip, turn).ravel()
        turned = upright.reshape(*upright.shape[:2], -1, 3)[:, :, view].reshape(upright.shape)
        best = min(best, (jigsaw.assembly_cost(turned, order, side, side), view), key=lambda pair: pair[0])
    back = np.argsort(best[1])
    return (back[pixel // 3] * 3 + pixel % 3).astype(np.int32)


def _unknown(method: Encryption) -> _Unknown | None:
    match method:
        case BlockScrambling():
            return _Unknown(blocks=True, pixels=False, signs=False)
        case PixelShuffling():
            return _Unknown(blocks=False, pixels=True, signs=False)
        case NegativePositive():
            return _Unknown(blocks=False, pixels=False, signs=True)
        case EncryptionThenCompression():
            # A symmetry that is applied to all blocks alike is a symmetry of the whole image.
            return _Unknown(blocks=True, pixels=bool(method.sub_block_size), signs=bool(method.sub_block_size))
        case BlockPixelNegativePositive(shared=True):
            return _Unknown(blocks=True, pixels=True, signs=True)
        case PixelPositionShuffling() if method.shared != "none":
            return _Unknown(blocks=True, pixels=True, signs=False)
        case BlockScramblingPixelShuffling() | RestrictedPermutations():
            return _Unknown(blocks=True, pixels=True, signs=False)
    return None
