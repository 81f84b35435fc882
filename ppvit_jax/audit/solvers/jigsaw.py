"""Puts square blocks in their places by their edges: a jigsaw puzzle of several images that are scrambled alike.

Edges are compared by Gallagher's Mahalanobis gradient compatibility ("Jigsaw puzzles with pieces of unknown
orientation", CVPR 2012), summed over images. Chuman and Kiya propose the attack on images whose blocks change places.
"""

from collections.abc import Iterable

import numpy as np

from ppvit_jax.audit.solvers.assembly import UNTURNED, Turns, solve
from ppvit_jax.errors import UserError

# Variance of the quantized gradients of a flat area, in gray levels squared; it keeps covariances invertible.
_NOISE = 1.0


def assemble(blocks: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Finds the places of upright blocks.

    Args:
      blocks: uint8 or float [images, rows * columns, side, side, channels], values from 0 to 255, scrambled alike in
        all images; the side is at least 2.
      rows, columns: size of the frame in blocks.

    Returns:
      int32 [rows * columns], the order such that `blocks[:, order]` are in row-major order.

    Raises:
      UserError: the blocks are not square or do not fill the frame.
    """
    check_blocks(blocks, rows, columns)
    costs = joint_costs(blocks, [blocks], UNTURNED)
    return solve(costs, UNTURNED, rows, columns)[0].astype(np.int32)


def assembly_cost(blocks: np.ndarray, order: np.ndarray, rows: int, columns: int) -> float:
    """Measures the misfit between neighboring blocks of an arrangement.

    Args:
      blocks, rows, columns: as for `assemble`.
      order: int [rows * columns], the block in each place.

    Returns:
      The mean squared difference between values that face each other across borders, in gray levels squared.

    Raises:
      UserError: see `assemble`.
    """
    check_blocks(blocks, rows, columns)
    placed = blocks[:, order].astype(np.float32)
    placed = placed.reshape(len(blocks), rows, columns, *blocks.shape[2:])
    across = (placed[:, :, :-1, :, -1] - placed[:, :, 1:, :, 0]).ravel()
    down = (placed[:, :-1, :, -1] - placed[:, 1:, :, 0]).ravel()
    differences = np.concatenate([across, down])
    return float(np.mean(differences**2, dtype=np.float64)) if len(differences) else 0.0


def check_blocks(blocks: np.ndarray, rows: int, columns: int) -> None:
    """Raises UserError unless the blocks are square and fill the frame."""
    square = blocks.ndim == 5 and blocks.shape[2] == blocks.shape[3] >= 2 and len(blocks)
    if not square or rows < 1 or columns < 1 or blocks.shape[1] != rows * columns:
        raise UserError(
            f"blocks of shape {blocks.shape} do not fill {rows}x{columns} places: "
            "give [images, rows * columns, side, side, channels] with a side of at least 2"
        )


def joint_costs(blocks: np.ndarray, turned: Iterable[np.ndarray], turns: Turns) -> np.ndarray:
    """Measures the misfit of every pair of blocks as neighbors, summed over images.

    Args:
      blocks: uint8 or float [images, n, side, side, channels], as for `assemble`.
      turned: for each turn, all blocks after that turn.
      turns: the group of turns.

    Returns:
      float32 [n, 4, n, turns]: element [i, d, j, t] is the cost of block j, after turn t, in direction d from block i.
    """
    count, variants = blocks.shape[1], len(turns.inverse)
    # (x - e)' P (x - e) is, up to a constant, an inner product of features of the two blocks.
    features, constants = zip(*(_expected(blocks, direction) for direction in range(4)), strict=True)
    one_way = np.empty((count, 4, count, variants), np.float32)
    for turn, blocks_turned in enumerate(turned):
        for direction in range(4):
            facing = _edge(blocks_turned, (direction + 2) % 4, 0)
            squares = np.einsum("nbpc,nbpd->nbcd", facing, facing)
            products = features[direction] @ np.concatenate([_flat(squares), _flat(facing)], axis=1).T
            one_way[:, direction, :, turn] = products + constants[direction][:, None]
    # Costs are relative to the median cost of an edge, which is that of a wrong neighbor, plus the cost of noise. They
    # are clipped to 1: otherwise a single joint at the border of a flat area would outweigh all others.
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
    """Returns features of each block's expected neighbor, [n, images * ...], and the constants of the costs, [n]."""
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
    """Returns values minus 127.5 at this depth below the edge in a direction: float32 [images, n, side, channels]."""
    depth = depth if direction >= 2 else -1 - depth
    return (blocks[:, :, :, depth] if direction % 2 == 0 else blocks[:, :, depth]).astype(np.float32) - 127.5


def _flat(values: np.ndarray) -> np.ndarray:
    """Flattens [images, n, ...] to [n, features]."""
    return values.swapaxes(0, 1).reshape(values.shape[1], -1)
