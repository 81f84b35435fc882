"""Puts square blocks in their places by what their edges look like: a jigsaw puzzle of N images cut alike.

Edges are compared by the Mahalanobis gradient compatibility of Gallagher ("Jigsaw puzzles with pieces of unknown
orientation", CVPR 2012), summed over images. The attack on images whose blocks change places is Chuman and Kiya's.
"""

from collections.abc import Iterable

import numpy as np

from ppvit_jax.audit.solvers.assembly import UNTURNED, Turns, solve
from ppvit_jax.errors import UserError

# Variance of quantised gradients of a flat area, in grey levels squared: keeps covariances invertible.
_NOISE = 1.0


def assemble(blocks: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Finds the places of blocks that are upright.

    Args:
      blocks: uint8 or floating point [images, rows * columns, side, side, channels], grey levels 0 to 255; the same
        blocks in all images, side at least 2.
      rows, columns: of the frame.

    Returns:
      int32 [rows * columns], `blocks[:, order]` lie in row-major order.

    Raises:
      UserError: another number or shape of blocks.
    """
    check_blocks(blocks, rows, columns)
    costs = joint_costs(blocks, [blocks], UNTURNED)
    return solve(costs, UNTURNED, rows, columns)[0].astype(np.int32)


def assembly_cost(blocks: np.ndarray, order: np.ndarray, rows: int, columns: int) -> float:
    """Measures how badly neighboring blocks of an arrangement fit.

    Returns the mean squared difference of the values that face each other across all borders, in gray levels squared.
    Arguments and errors are those of `assemble`, and `order` is of the kind that it returns.
    """
    check_blocks(blocks, rows, columns)
    placed = blocks[:, order].astype(np.float32)
    placed = placed.reshape(len(blocks), rows, columns, *blocks.shape[2:])
    across = (placed[:, :, :-1, :, -1] - placed[:, :, 1:, :, 0]).ravel()
    down = (placed[:, :-1, :, -1] - placed[:, 1:, :, 0]).ravel()
    differences = np.concatenate([across, down])
    return float(np.mean(differences**2, dtype=np.float64)) if len(differences) else 0.0


def check_blocks(blocks: np.ndarray, rows: int, columns: int) -> None:
    """Raises UserError unless these are square blocks that fill the frame."""
    square = blocks.ndim == 5 and blocks.shape[2] == blocks.shape[3] >= 2 and len(blocks)
    if not square or rows < 1 or columns < 1 or blocks.shape[1] != rows * columns:
        raise UserError(
            f"blocks of shape {blocks.shape} do not fill {rows}x{columns} places: "
            "give [images, rows * columns, side, side, channels] with a side of at least 2"
        )


def joint_costs(blocks: np.ndarray, turned: Iterable[np.ndarray], turns: Turns) -> np.ndarray:
    """Measures how badly each block fits beside each other one, summed over images.

    Args:
      blocks: [images, n, side, side, channels], as `assemble`.
      turned: the blocks after each turn, one by one.
      turns: the group.

    Returns:
      float32 [n, 4, n, turns]: of block i as it is and, in each direction from it, block j turned.
    """
    count, variants = blocks.shape[1], len(turns.inverse)
    # (x - e)' P (x - e) is a product of features of the one block and of the other.
    features, constants = zip(*(_expected(blocks, direction) for direction in range(4)), strict=True)
    one_way = np.empty((count, 4, count, variants), np.float32)
    for turn, blocks_turned in enumerate(turned):
        for direction in range(4):
            facing = _edge(blocks_turned, (direction + 2) % 4, 0)
            squares = np.einsum("nbpc,nbpd->nbcd", facing, facing)
            products = features[direction] @ np.concatenate([_flat(squares), _flat(facing)], axis=1).T
            one_way[:, direction, :, turn] = products + constants[direction][:, None]
    # Relative to what blocks that do not belong there cost, and no worse than these: where a flat area ends, one joint
    # would outweigh all others. At least what noise costs.
    noise = np.float32(blocks.shape[0] * blocks.shape[2] * blocks.shape[4])
    usual = np.median(one_way.reshape(count, 4, -1), axis=-1) + noise
    one_way = np.clip(one_way / usual[:, :, None, None], 0, 1)
    costs = np.empty_like(one_way)
    for turn in range(variants):
        back = turns.inverse[turn]
        for direction in range(4):
            seen = turns.directions[back, (direction + 2) % 4]
            costs[:, direction, :, turn] = one_way[:, direction, :, turn] + one_way[:, seen, :, back].T
    itself = np.arange(count)
    costs[itself, :, itself] = np.inf
    return costs


def _expected(blocks: np.ndarray, direction: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the values expected beside each block: features [n, images * ...], and terms to add to products [n]."""
    outer, inner = _edge(blocks, direction, 0), _edge(blocks, direction, 1)
    gradients = outer - inner
    mean = gradients.mean(axis=2, keepdims=True)
    covariance = np.einsum("nbpc,nbpd->nbcd", gradients - mean, gradients - mean) / gradients.shape[2]
    precision = np.linalg.inv(covariance + _NOISE * np.eye(covariance.shape[-1])).astype(np.float32)
    weighted = np.einsum("nbcd,nbpd->nbpc", precision, outer + mean)
    return (
        np.concatenate([_flat(precision), -2 * _flat(weighted)], axis=1),
        np.einsum("nbpc,nbpc->b", weighted, outer + mean),
    )


def _edge(blocks: np.ndarray, direction: int, depth: int) -> np.ndarray:
    """float32 [images, n, side, channels], centred: the values at this depth below the edge that looks there."""
    depth = depth if direction >= 2 else -1 - depth
    return (blocks[:, :, :, depth] if direction % 2 == 0 else blocks[:, :, depth]).astype(np.float32) - 127.5


def _flat(values: np.ndarray) -> np.ndarray:
    """[images, n, ...] -> [n, features]"""
    return values.swapaxes(0, 1).reshape(values.shape[1], -1)
