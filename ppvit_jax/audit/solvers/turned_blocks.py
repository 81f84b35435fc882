"""Ciphertext-only attack on encryption-then-compression (EtC) with a key for each block: a jigsaw of turned blocks.

Every block may be rotated, flipped and inverted, and its channels may change places. This makes up to 96 turns, which
are the same in all images. Sources: Chuman, Kurihara and Kiya ("On the security of block scrambling-based EtC systems
against extended jigsaw puzzle solver attacks", 2018); Chuman and Kiya for Vision Transformers (arXiv 2202.00806).
"""

import numpy as np

from ppvit_jax.audit.solvers import assembly
from ppvit_jax.audit.solvers.jigsaw import joint_costs
from ppvit_jax.audit.solvers.structure import check_images
from ppvit_jax.encryption import EncryptionThenCompression, Secret
from ppvit_jax.encryption.blockwise import undo
from ppvit_jax.encryption.permutations import join_blocks, split_blocks
from ppvit_jax.encryption.pixel_encryption import CHANNEL_ORDERS
from ppvit_jax.errors import UserError

# The largest number of block pairs, over all images, that are compared; from more images, a sample is drawn.
_COMPARED = 20 * 196**2
_QUARTER, _FLIP = np.array([[0, -1], [1, 0]]), np.array([[1, 0], [0, -1]])


def solve(method: EncryptionThenCompression, encrypted: np.ndarray, *, seed: int = 0) -> Secret:
    """Estimates the secret from the edges of blocks.

    Args:
      method: encryption-then-compression; its options determine the turns. Sub-blocks are treated as separate blocks.
      encrypted: uint8 [images, height, width, 3], all encrypted with one secret.
      seed: seed of the sample of images, if there are more than are compared.

    Returns:
      {"index": int32 [values], "mask": uint8 [values]}, with which the method decrypts. It is known up to one rotation,
      flip, inversion and channel order of the whole image, which ciphertexts do not reveal.

    Raises:
      UserError: the channel option destroys information, the blocks are single pixels, or `encrypted` are not images.
    """
    if method.loses_channels:
        raise UserError(
            f"encryption {method.spec} destroys information, so no secret decrypts it: use another channels option"
        )
    check_images(encrypted)
    side = method.sub_block_size or method.block_size
    if side < 2:
        raise UserError("blocks of one pixel have no edges to compare: attack an encryption with larger blocks")
    height, width = encrypted.shape[1:3]
    rows, columns = height // side, width // side
    kept = max(1, min(len(encrypted), _COMPARED // (rows * columns) ** 2))
    chosen = np.sort(np.random.default_rng(seed).choice(len(encrypted), kept, replace=False))
    blocks = _pieces(encrypted[chosen], side)
    variants = [
        (symmetry, inverted, order)
        for symmetry in range(8 if method.rotation else 1)
        for inverted in range(2 if method.negative_positive else 1)
        for order in range(6 if method.channels == "permuted" else 1)
    ]
    turns = _group(variants)
    costs = joint_costs(blocks, (_turn(blocks, *variant) for variant in variants), turns)
    block, turn = assembly.solve(costs, turns, rows, columns)

    places = _pieces(np.arange(encrypted[0].size, dtype=np.int32).reshape(encrypted.shape[1:]), side)
    back = np.stack([_turn(places[i], variants[t][0], 0, variants[t][2]) for i, t in zip(block, turn, strict=True)])
    mask = np.broadcast_to(
        np.array([variants[t][1] for t in turn], np.uint8)[:, None] * np.uint8(255), (len(turn), side**2 * 3)
    )

    def image(parts: np.ndarray) -> np.ndarray:
        return join_blocks(parts.reshape(len(turn), -1), height, width, side).ravel()

    return undo({"index": image(back), "mask": image(mask)})


def _pieces(images: np.ndarray, side: int) -> np.ndarray:
    """Divides images [..., height, width, 3] into blocks [..., n, side, side, 3]."""
    blocks = split_blocks(images, side)
    return blocks.reshape(*blocks.shape[:-1], side, side, 3)


def _turn(blocks: np.ndarray, symmetry: int, inverted: int, order: int) -> np.ndarray:
    """Turns blocks [..., side, side, 3]: rotates and flips them, reorders their channels, and may invert them.

    Symmetry s is a rotation by s % 4 quarter turns, followed by a left-right flip if s is at least 4.
    """
    turned = np.rot90(blocks, symmetry % 4, axes=(-3, -2))
    turned = turned[..., ::-1, :] if symmetry >= 4 else turned
    turned = turned[..., CHANNEL_ORDERS[order]]
    return np.uint8(255) - turned if inverted else turned


def _group(variants: list[tuple[int, int, int]]) -> assembly.Turns:
    """Returns the group of these turns, found by applying them to a block on which all turns differ."""
    block = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    number = {_turn(block, *variant).tobytes(): turn for turn, variant in enumerate(variants)}
    compose = np.array(
        [[number[_turn(_turn(block, *second), *first).tobytes()] for second in variants] for first in variants]
    )
    inverse = np.argmin(compose, axis=1)
    offsets = np.array(
        [
            (_FLIP if symmetry >= 4 else np.eye(2, dtype=np.int64)) @ np.linalg.matrix_power(_QUARTER, symmetry % 4)
            for symmetry, _, _ in variants
        ]
    )
    return assembly.Turns(compose, inverse, offsets)
