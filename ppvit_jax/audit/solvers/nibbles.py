"""Learnable image encryption (LE) from encrypted images alone: its nibbles change places alike in all blocks.

High nibbles correlate with each other and low ones hardly: the first eigenvector of their correlations tells which they
are, and by its signs which are inverted, as neighbouring values of an image differ little. Blocks stay where they are,
so that a nibble that differs less from the block to the right than from the one to the left lies to the right; then
nibbles exchange their places as long as the picture becomes smoother (a quadratic assignment). The same is done with
the low nibbles on a circle, where 15 is next to 0; they are matched to what the smoothed high ones predict. That LE's
one key for all blocks shows the image is Madono et al.'s reason for a key for each ("Block-wise scrambled image
recognition using adaptation network", 2020).
"""

import itertools

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.optimize import linear_sum_assignment

from ppvit_jax.audit.solvers.structure import check_images
from ppvit_jax.encryption import LearnableEncryption, Secret
from ppvit_jax.encryption.blockwise import undo
from ppvit_jax.encryption.permutations import join_blocks, split_blocks
from ppvit_jax.encryption.pixel_encryption import CHANNEL_ORDERS
from ppvit_jax.errors import UserError

# Nibbles that are compared, to bound time and memory; of more images the first are used.
_NIBBLES = 2**23


def solve(method: LearnableEncryption, encrypted: np.ndarray) -> Secret:
    """Estimates the secret.

    Args:
      method: with blocks of at least 2.
      encrypted: uint8 [images, height, width, 3], all with one secret, of at least 2 blocks in each direction.

    Returns:
      {"index": int32 [nibbles], "mask": uint8 [nibbles], 15 or 0}, with which the method decrypts; up to one inversion
      and one order of channels of all images.

    Raises:
      UserError: images that are not such.
    """
    size = method.block_size
    check_images(encrypted)
    height, width = encrypted.shape[1:3]
    if size < 2 or min(height, width) < 2 * size:
        raise UserError(f"images of {height}x{width} have too few blocks of {size}: give at least 2 in each direction")
    blocks = split_blocks(encrypted[: max(1, _NIBBLES // (2 * encrypted[0].size))], size)
    nibbles = np.concatenate([blocks & 15, blocks >> 4], axis=-1).astype(np.float32) - 7.5
    values = size**2 * 3
    nibbles = nibbles.reshape(len(blocks), height // size, width // size, 2 * values)

    first = _first_eigenvector(nibbles.reshape(-1, 2 * values))
    high = np.sort(np.argsort(-np.abs(first))[:values])
    low = np.setdiff1d(np.arange(2 * values), high)
    upright = nibbles[..., high] * np.where(first[high] < 0, -1, 1).astype(np.float32)
    costs, even = _differences(upright), _differences(_standardised(upright))
    order = _smoothest(costs, [_arrange(costs, size), _arrange(even, size)], size)
    placed_high, negative_high = high[order], first[high[order]] < 0
    chosen, negative_low = _match_low(nibbles[..., low], upright[..., order], size)

    back = np.concatenate([low[chosen], placed_high])
    negative = np.concatenate([negative_low, negative_high])
    count = height * width // size**2
    index = np.arange(count * 2 * values, dtype=np.int32).reshape(count, -1)[:, back]
    return undo({"index": index.ravel(), "mask": np.tile(negative, count).astype(np.uint8) * np.uint8(15)})


def _first_eigenvector(samples: np.ndarray) -> np.ndarray:
    """Returns the first eigenvector of the correlations of samples [n, variables]: float64 [variables]."""
    centred = _standardised(samples)
    return np.linalg.eigh((centred.T @ centred).astype(np.float64) / len(samples))[1][:, -1]


def _standardised(samples: np.ndarray) -> np.ndarray:
    """Each variable, along the last axis, with mean 0 and variance 1."""
    rest = tuple(range(samples.ndim - 1))
    centred = samples - samples.mean(axis=rest)
    return centred / np.maximum(centred.std(axis=rest), 1e-6)


def _arrange(costs: np.ndarray, size: int) -> np.ndarray:
    """Finds the nibble of each value of a block, from the costs of `_differences`: int64 [values]."""
    count = costs.shape[-1]
    # A nibble near the right border differs less from the block on the right than from the one on the left.
    right, below = (cost.sum(axis=0) - cost.sum(axis=1) for cost in costs[1:])
    # Ranks, as places in the block; three nibbles for each of them.
    wanted = np.stack([below, right], axis=1).argsort(axis=0).argsort(axis=0) / count * size - 0.5
    place = np.stack(np.divmod(np.arange(size**2), size), axis=1)
    distance = ((np.repeat(place, 3, axis=0)[:, None] - wanted[None]) ** 2).sum(axis=-1)
    order = linear_sum_assignment(distance)[1]
    return _smoothest(costs, [_match_channels(costs[0], order, size)], size)


def _smoothest(costs: np.ndarray, starts: list[np.ndarray], size: int) -> np.ndarray:
    """The arrangement of least cost between neighbours that exchanges of two lead to from any of these starts."""
    flows = _neighbours(size)
    found = [_exchange(costs, flows, start) for start in starts]
    return min(found, key=lambda order: np.sum(flows * costs[:, order][:, :, order]))


def _differences(values: np.ndarray) -> np.ndarray:
    """Mean squared differences of values in a block, to the block on the right, and to the one below.

    values: floating point or complex [images, rows, columns, n]. Returns float64 [3, n, n].
    """
    pairs = (values, values), (values[:, :, :-1], values[:, :, 1:]), (values[:, :-1], values[:, 1:])
    costs = []
    for one, other in pairs:
        one, other = one.reshape(-1, one.shape[-1]), other.reshape(-1, one.shape[-1])
        squares = (np.abs(one) ** 2).mean(axis=0)[:, None] + (np.abs(other) ** 2).mean(axis=0)
        costs.append(squares - 2 * np.real(one.T @ other.conj()) / len(one))
    return np.stack(costs).astype(np.float64)


def _neighbours(size: int) -> np.ndarray:
    """float64 [3, values, values]: which values of one channel touch, in a block and across its borders as above."""
    row, column, channel = (part.ravel() for part in np.indices((size, size, 3)))
    same = channel[:, None] == channel

    def touching(down: int, right: int) -> np.ndarray:
        rows, columns = row[None] + down - row[:, None], column[None] + right - column[:, None]
        return same * ((np.abs(rows) + np.abs(columns) == 1) + 0.5 * ((np.abs(rows) == 1) & (np.abs(columns) == 1)))

    return np.stack([touching(0, 0) / 2, touching(0, size), touching(size, 0)])


def _match_channels(costs: np.ndarray, order: np.ndarray, size: int) -> np.ndarray:
    """Puts the three nibbles of each place in the order of channels that fits the places before it."""
    order = order.reshape(size, size, 3).copy()
    for row, column in itertools.product(range(size), repeat=2):
        before = [order[row, column - 1]] * (column > 0) + [order[row - 1, column]] * (row > 0)
        if before:
            cost = sum(costs[np.ix_(neighbour, order[row, column])] for neighbour in before)
            order[row, column] = order[row, column][linear_sum_assignment(cost)[1]]
    return order.ravel()


def _exchange(costs: np.ndarray, flows: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Exchanges two nibbles, the best exchange first, as long as that lowers the sum of flows * costs[order, order]."""
    order, either = order.copy(), flows + flows.swapaxes(1, 2)
    while True:
        placed = costs[:, order][:, :, order]
        other, own = placed.swapaxes(1, 2), np.einsum("kii->ki", placed)
        # moved[i, j]: the cost of what lies in place j if it lay in place i, among the others as they lie.
        moved = (flows @ other + flows.swapaxes(1, 2) @ placed).sum(axis=0)
        here = np.diag(moved)
        gain = here[:, None] + here - moved - moved.T
        # What the two are to each other was counted twice, and in wrong places.
        gain += (either * (own[:, :, None] + own[:, None] - placed - other)).sum(axis=0)
        one, two = np.unravel_index(np.argmax(gain), gain.shape)
        if gain[one, two] <= 1e-9 * np.sum(flows * placed):
            return order
        order[[one, two]] = order[[two, one]]


def _match_low(low: np.ndarray, high: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds the low nibble of each value, and whether it is inverted, by the smoothed picture.

    Args:
      low, high: float32 [images, rows, columns, values], -7.5 to 7.5; the high ones upright and arranged.
      size: side of a block.

    Returns:
      int64 [values], bool [values].
    """
    images, rows, columns, values = high.shape
    picture = join_blocks(high.reshape(images, rows * columns, values), rows * size, columns * size, size)
    for axis, _ in itertools.product((1, 2), range(2)):
        picture = uniform_filter1d(picture, 5, axis=axis, mode="nearest")
    predicted = split_blocks(picture, size).reshape(-1, values)
    # A low nibble runs through a circle while the picture rises by one level of the high ones.
    # A half: where high nibbles average to a whole level, the value lies between two of them.
    expected = np.exp(2j * np.pi * (predicted + 0.5)).astype(np.complex64)
    circle = np.exp(2j * np.pi * low / 16).astype(np.complex64)
    flat = circle.reshape(-1, values)
    # Which are inverted relative to each other, by the first eigenvector of signed coherence.
    alike, opposite = np.abs(flat.T @ flat.conj()), np.abs(flat.T @ flat)
    negative = np.linalg.eigh(alike - opposite)[1][:, -1] < 0
    circle = np.where(negative, circle.conj(), circle)
    upright, inverted = (
        (expected.conj().T @ each).real for each in (circle.reshape(-1, values), circle.reshape(-1, values).conj())
    )
    if inverted.max(axis=0).sum() > upright.max(axis=0).sum():
        circle, negative, upright = circle.conj(), ~negative, inverted
    costs = _differences(circle)
    order = _smoothest(costs, [linear_sum_assignment(-upright)[1], _arrange(costs, size)], size)
    # Which channel of the low nibbles belongs to which of the high ones.
    place = np.arange(values)
    channels = [order.reshape(-1, 3)[:, each].ravel() for each in CHANNEL_ORDERS]
    order = max(channels, key=lambda order: upright[place, order].sum())
    return order, negative[order]
