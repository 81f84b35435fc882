"""Ciphertext-only attack on learnable image encryption (LE), whose nibbles change places alike in all blocks.

High nibbles correlate with each other, and low nibbles hardly. The first eigenvector of the correlations therefore
separates them, and its signs show the inverted ones. Blocks keep their places, so a nibble that differs less from the
block on the right than from the block on the left lies near the right border. Then nibbles exchange places as long as
the picture becomes smoother (a quadratic assignment). Low nibbles are arranged likewise on a circle, where 15 is next
to 0, and matched to the values that the smoothed high nibbles predict. Madono et al. ("Block-wise scrambled image
recognition using adaptation network", 2020) propose a key for each block because one key for all reveals the image.
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

# The largest number of nibbles that are compared, which bounds time and memory; only the first images are used.
_NIBBLES = 2**23


def solve(method: LearnableEncryption, encrypted: np.ndarray) -> Secret:
    """Estimates the secret from encrypted images.

    Args:
      method: learnable image encryption with blocks of at least 2x2 pixels.
      encrypted: uint8 [images, height, width, 3], encrypted with one secret, at least 2 blocks in each direction.

    Returns:
      {"index": int32 [nibbles], "mask": uint8 [nibbles], 15 or 0}, with which the method decrypts; known up to one
      inversion and one channel order of all images.

    Raises:
      UserError: `encrypted` are not images, or have too few blocks.
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
    costs, even = _differences(upright), _differences(_standardized(upright))
    order = _smoothest(costs, [_arrange(costs, size), _arrange(even, size)], size)
    placed_high, negative_high = high[order], first[high[order]] < 0
    chosen, negative_low = _match_low(nibbles[..., low], upright[..., order], size)

    back = np.concatenate([low[chosen], placed_high])
    negative = np.concatenate([negative_low, negative_high])
    count = height * width // size**2
    index = np.arange(count * 2 * values, dtype=np.int32).reshape(count, -1)[:, back]
    return undo({"index": index.ravel(), "mask": np.tile(negative, count).astype(np.uint8) * np.uint8(15)})


def _first_eigenvector(samples: np.ndarray) -> np.ndarray:
    """Returns the first eigenvector of the correlation matrix of samples [n, variables]: float64 [variables]."""
    centered = _standardized(samples)
    return np.linalg.eigh((centered.T @ centered).astype(np.float64) / len(samples))[1][:, -1]


def _standardized(samples: np.ndarray) -> np.ndarray:
    """Scales each variable, along the last axis, to mean 0 and variance 1."""
    rest = tuple(range(samples.ndim - 1))
    centered = samples - samples.mean(axis=rest)
    return centered / np.maximum(centered.std(axis=rest), 1e-6)


def _arrange(costs: np.ndarray, size: int) -> np.ndarray:
    """Finds the nibble of each value of a block, from the costs of `_differences`: int64 [values]."""
    count = costs.shape[-1]
    # A nibble near the right border differs less from the block on the right than from the one on the left.
    right, below = (cost.sum(axis=0) - cost.sum(axis=1) for cost in costs[1:])
    # The ranks give coordinates in the block; three nibbles go to each place.
    wanted = np.stack([below, right], axis=1).argsort(axis=0).argsort(axis=0) / count * size - 0.5
    place = np.stack(np.divmod(np.arange(size**2), size), axis=1)
    distance = ((np.repeat(place, 3, axis=0)[:, None] - wanted[None]) ** 2).sum(axis=-1)
    order = linear_sum_assignment(distance)[1]
    return _smoothest(costs, [_match_channels(costs[0], order, size)], size)


def _smoothest(costs: np.ndarray, starts: list[np.ndarray], size: int) -> np.ndarray:
    """Improves each start by exchanges of two nibbles, and returns the arrangement with the lowest cost."""
    flows = _neighbors(size)
    found = [_exchange(costs, flows, start) for start in starts]
    return min(found, key=lambda order: np.sum(flows * costs[:, order][:, :, order]))


def _differences(values: np.ndarray) -> np.ndarray:
    """Returns mean squared differences of values in a block, to the block on the right, and to the block below.

    Args:
      values: float or complex [images, rows, columns, n].

    Returns:
      float64 [3, n, n].
    """
    pairs = (values, values), (values[:, :, :-1], values[:, :, 1:]), (values[:, :-1], values[:, 1:])
    costs = []
    for one, other in pairs:
        one, other = one.reshape(-1, one.shape[-1]), other.reshape(-1, one.shape[-1])
        squares = (np.abs(one) ** 2).mean(axis=0)[:, None] + (np.abs(other) ** 2).mean(axis=0)
        costs.append(squares - 2 * np.real(one.T @ other.conj()) / len(one))
    return np.stack(costs).astype(np.float64)


def _neighbors(size: int) -> np.ndarray:
    """Returns weights of values that touch in a channel, for the three costs of `_differences`: float64 [3, n, n]."""
    row, column, channel = (part.ravel() for part in np.indices((size, size, 3)))
    same = channel[:, None] == channel

    def touching(down: int, right: int) -> np.ndarray:
        rows, columns = row[None] + down - row[:, None], column[None] + right - column[:, None]
        return same * ((np.abs(rows) + np.abs(columns) == 1) + 0.5 * ((np.abs(rows) == 1) & (np.abs(columns) == 1)))

    return np.stack([touching(0, 0) / 2, touching(0, size), touching(size, 0)])


def _match_channels(costs: np.ndarray, order: np.ndarray, size: int) -> np.ndarray:
    """Orders the three nibbles of each place by channel, to fit the places above and to the left."""
    order = order.reshape(size, size, 3).copy()
    for row, column in itertools.product(range(size), repeat=2):
        before = [order[row, column - 1]] * (column > 0) + [order[row - 1, column]] * (row > 0)
        if before:
            cost = sum(costs[np.ix_(neighbor, order[row, column])] for neighbor in before)
            order[row, column] = order[row, column][linear_sum_assignment(cost)[1]]
    return order.ravel()


def _exchange(costs: np.ndarray, flows: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Makes the best exchange of two nibbles while one lowers the sum of flows * costs[order, order]."""
    order, either = order.copy(), flows + flows.swapaxes(1, 2)
    while True:
        placed = costs[:, order][:, :, order]
        other, own = placed.swapaxes(1, 2), np.einsum("kii->ki", placed)
        # moved[i, j]: the cost of the nibble of place j if it were in place i and the others stayed.
        moved = (flows @ other + flows.swapaxes(1, 2) @ placed).sum(axis=0)
        here = np.diag(moved)
        gain = here[:, None] + here - moved - moved.T
        # The costs between the two nibbles themselves were counted twice, and in the wrong places.
        gain += (either * (own[:, :, None] + own[:, None] - placed - other)).sum(axis=0)
        one, two = np.unravel_index(np.argmax(gain), gain.shape)
        if gain[one, two] <= 1e-9 * np.sum(flows * placed):
            return order
        order[[one, two]] = order[[two, one]]


def _match_low(low: np.ndarray, high: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds the low nibble of each value, and its inversion, from the smoothed picture of high nibbles.

    Args:
      low, high: float32 [images, rows, columns, values], -7.5 to 7.5; the high nibbles are upright and arranged.
      size: side of a block in pixels.

    Returns:
      The number of the low nibble, int64 [values], and True if it is inverted, bool [values].
    """
    images, rows, columns, values = high.shape
    picture = join_blocks(high.reshape(images, rows * columns, values), rows * size, columns * size, size)
    for axis, _ in itertools.product((1, 2), range(2)):
        picture = uniform_filter1d(picture, 5, axis=axis, mode="nearest")
    predicted = split_blocks(picture, size).reshape(-1, values)
    # A low nibble runs through a full circle while the picture rises by one level of the high nibbles. The offset of a
    # half: if high nibbles average to a whole level, the value lies in the middle of that level.
    expected = np.exp(2j * np.pi * (predicted + 0.5)).astype(np.complex64)
    circle = np.exp(2j * np.pi * low / 16).astype(np.complex64)
    flat = circle.reshape(-1, values)
    # The first eigenvector of signed coherence shows which nibbles are inverted relative to each other.
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
    # Assign the channels of the low nibbles to the channels of the high nibbles.
    place = np.arange(values)
    channels = [order.reshape(-1, 3)[:, each].ravel() for each in CHANNEL_ORDERS]
    order = max(channels, key=lambda order: upright[place, order].sum())
    return order, negative[order]
