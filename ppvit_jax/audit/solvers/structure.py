"""Structure of each encryption method, apart from the key: everything that an attacker who has the method knows."""

import dataclasses

import numpy as np

from ppvit_jax.encryption.block_pixel_negative_positive import BlockPixelNegativePositive
from ppvit_jax.encryption.block_scrambling import BlockScrambling
from ppvit_jax.encryption.block_scrambling_pixel_shuffling import BlockScramblingPixelShuffling
from ppvit_jax.encryption.encryption_then_compression import IN_PLACE_ORDERS, EncryptionThenCompression
from ppvit_jax.encryption.extended_learnable import ExtendedLearnableEncryption
from ppvit_jax.encryption.learnable import Nibbles
from ppvit_jax.encryption.method import Encryption
from ppvit_jax.encryption.negative_positive import NegativePositive
from ppvit_jax.encryption.permutations import check_size, split_blocks
from ppvit_jax.encryption.pixel_encryption import CHANNEL_ORDERS, PixelEncryption
from ppvit_jax.encryption.pixel_position_shuffling import PixelPositionShuffling
from ppvit_jax.encryption.pixel_shuffling import PixelShuffling
from ppvit_jax.encryption.restricted import RestrictedPermutations
from ppvit_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Structure:
    """The effects that a method can have on images of one size, whatever the key.

    Blocks move, sites (groups of values) move inside their block, and a transform acts on the values of a site.

    places: int [blocks, sites, width], the places of a site's values in the flattened image (see `flatten`).
    kinds: int [sites]; only sites of the same kind change places.
    orders, inverted: int and bool [transforms, width]: value k becomes value orders[k], and is inverted if inverted[k].
      The first transform is the identity.
    group: True if transforms form a group, so that each can be undone.
    blocks_move: True if blocks change places.
    alike: True if the same happens inside all blocks.
    staying: the numbers of blocks and of sites that are known to keep their places.
    top: the largest value: 255, or 15 for four-bit halves.
    """

    places: np.ndarray
    kinds: np.ndarray
    orders: np.ndarray
    inverted: np.ndarray
    group: bool = True
    blocks_move: bool = True
    alike: bool = True
    staying: tuple[int, int] = (0, 0)
    top: int = 255


def structure(method: Encryption, height: int, width: int) -> Structure:
    """Returns the structure of a method that permutes and inverts values.

    Args:
      method: the encryption method, with its block size.
      height, width: size of the images in pixels.

    Raises:
      UserError: the method does more than move and invert values, or the size does not fit its blocks.
    """
    if method.encodes:
        raise UserError(f"encryption {method.spec} encodes images: use an encryption that moves values")
    size = method.block_size if method.blocks else 1
    check_size(height, width, size)
    places = split_blocks(np.arange(height * width * 3).reshape(height, width, 3), size)
    single, values = places[..., None], np.arange(size**2 * 3)
    alone = np.zeros((1, 1), int), np.zeros((1, 1), bool)
    inverting = np.zeros((2, 1), int), np.array([[False], [True]])
    match method:
        case Nibbles():
            nibbles = np.arange(height * width * 6).reshape(len(places), -1, 1)
            ele = isinstance(method, ExtendedLearnableEncryption)
            kinds = np.zeros(nibbles.shape[1], int)
            return Structure(nibbles, kinds, *inverting, blocks_move=ele, alike=not ele, top=15)
        case BlockScrambling():
            return Structure(places[:, None], values[:1], values[None], np.zeros((1, len(values)), bool))
        case PixelShuffling() | BlockScramblingPixelShuffling():
            return Structure(single, 0 * values, *alone, blocks_move=not isinstance(method, PixelShuffling))
        case RestrictedPermutations():
            staying = method.count_fixed(len(places), len(values))
            return Structure(single, 0 * values, *alone, staying=staying)
        case NegativePositive():
            return Structure(single, values, *inverting, blocks_move=False)
        case BlockPixelNegativePositive():
            return Structure(single, 0 * values, *inverting, alike=method.shared)
        case PixelPositionShuffling():
            side = size // 2 if method.sub_block == "half" else size
            parts = _sub_blocks(places, size, side).reshape(len(places), -1, side**2, 3)
            kinds = np.arange(parts.shape[1]).repeat(side**2)
            if method.shared == "all":
                # The pixels at one place of every sub-block move together.
                parts, kinds = parts.swapaxes(1, 2), kinds[: side**2] * 0
            sites = parts.reshape(len(places), len(kinds), -1)
            order = np.arange(sites.shape[-1])[None]
            return Structure(sites, kinds, order, order < 0, alike=method.shared != "none")
        case EncryptionThenCompression():
            side = method.sub_block_size or size
            sites = _sub_blocks(places, size, side)
            orders, inverted = _etc_transforms(method, side)
            group = not method.loses_channels
            return Structure(sites, np.zeros(sites.shape[1], int), orders, inverted, group, alike=method.shared)
        case PixelEncryption():
            pixels = places.reshape(1, -1, 3)
            orders = CHANNEL_ORDERS if method.colour else CHANNEL_ORDERS[:1]
            masks = np.arange(8)[:, None] >> np.arange(3) & 1 == 1
            kinds = np.arange(pixels.shape[1])
            transforms = np.tile(orders, (8, 1)), masks.repeat(len(orders), axis=0)
            return Structure(pixels, kinds, *transforms, blocks_move=False, alike=False)
    raise UserError(f"there is no attack on encryption {method.spec}: use one of the other encryptions")


def check_images(encrypted: np.ndarray) -> None:
    """Raises UserError unless these are one or more images, uint8 [images, height, width, 3]."""
    if encrypted.ndim != 4 or encrypted.shape[-1] != 3 or encrypted.dtype != np.uint8 or not encrypted.size:
        shape = f"{encrypted.dtype} {encrypted.shape}"
        raise UserError(f"the encrypted images are {shape}: give uint8 [images, height, width, 3]")


def flatten(method: Encryption, images: np.ndarray) -> np.ndarray:
    """Returns the values that a method moves, uint8 [n, places], from images, uint8 [n, height, width, 3]."""
    if not isinstance(method, Nibbles):
        return images.reshape(len(images), -1)
    blocks = split_blocks(images, method.block_size)
    return np.concatenate([blocks & np.uint8(15), blocks >> np.uint8(4)], axis=-1).reshape(len(images), -1)


def mix(words: np.ndarray) -> np.ndarray:
    """Hashes uint64 words by the finalizer of splitmix64 (Steele, Lea and Flood 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _sub_blocks(places: np.ndarray, size: int, side: int) -> np.ndarray:
    """Divides blocks into sub-blocks: int [blocks, sub-blocks, values] from int [blocks, values]."""
    return split_blocks(places.reshape(-1, size, size, 3), side)


def _etc_transforms(method: EncryptionThenCompression, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct orders and inversions that EtC may apply to a (sub-)block."""
    site = np.arange(side**2 * 3).reshape(side, side, 3)
    turned = [site]
    if method.rotation:
        flipped = (site, site[:, ::-1])
        turned = [np.rot90(start, quarters) for start in flipped for quarters in range(4)]
    channels = CHANNEL_ORDERS[:1] if method.channels == "none" else CHANNEL_ORDERS
    if method.loses_channels:
        channels = IN_PLACE_ORDERS
    orders = np.stack([square[..., order].reshape(-1) for square in turned for order in channels])
    # Several turns of a small block may be equal. Each is kept once; the identity stays first.
    orders = orders[np.sort(np.unique(orders, axis=0, return_index=True)[1])]
    negative = (False, True) if method.negative_positive else (False,)
    inverted = np.repeat(negative, len(orders))[:, None] & np.ones(orders.shape[1], bool)
    return np.tile(orders, (len(negative), 1)), inverted
