"""Finds the pixel and channel of each value of an encrypted block from the correlations between values.

Pixel shuffling moves the values of all blocks alike, so the correlations between values survive. In natural images they
fall with distance. An inversion only changes their sign.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from ppvit_jax.audit.solvers import grid
from ppvit_jax.audit.solvers.symmetry import SYMMETRIES, transform

_EIGENVECTORS = 32
_REFERENCE_STEPS = 20
# The largest number of candidates for a channel that are arranged with full effort.
_PARTS = 3


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """The places of an encrypted block's values in the plain block.

    pixel: int32 [values], the place of each value in the plain block, in (row, column, channel) order; known up to
      rotations and flips of the block and up to the order of the channels.
    negative: bool [values], True for inverted values; known up to inverting all.
    smoothness: mean correlation of neighboring pixels in this arrangement.
    """

    pixel: np.ndarray
    negative: np.ndarray
    smoothness: float


def correlate(values: np.ndarray) -> np.ndarray:
    """Returns the correlations between the columns of values [samples, n]: float64 [n, n], 0 for constant columns."""
    centered = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    norm = np.sqrt(np.square(centered).sum(axis=0))
    scaled = centered / np.where(norm > 0, norm, 1)
    return scaled.T @ scaled


def signs(correlation: np.ndarray) -> np.ndarray:
    """Finds the inverted values by the sign of the first eigenvector: bool [n], up to inverting all.

    In natural images all values are positively correlated, because whole blocks are bright or dark.
    """
    vector = np.linalg.eigh(correlation)[1][:, -1]
    negative = vector < 0
    return negative if negative.mean() <= 0.5 else ~negative


def arrange(
    values: np.ndarray,
    block_size: int,
    *,
    inverted: bool = False,
    start: np.ndarray | None = None,
    reference: np.ndarray | None = None,
    seed: int = 0,
) -> Arrangement:
    """Arranges values into smooth blocks, and matches their statistics to a reference if there is one.

    Args:
      values: uint8 [samples, block_size * block_size * 3], encrypted blocks from any images and places.
      block_size: side of a block in pixels.
      inverted: True if the method inverts values.
      start: int [values], the value in each place of an arrangement that is known to be partly right.
      reference: uint8 [samples, values], plain blocks of other images with similar content.
      seed: seed of the clustering.

    Returns:
      The smoothest arrangement found.
    """
    correlation = correlate(values)
    negative = signs(correlation) if inverted else np.zeros(len(correlation), bool)
    sign = np.where(negative, -1, 1)
    correlation = correlation * sign[:, None] * sign[None]
    expected = None if reference is None else correlate(reference)
    starts = [] if start is None else [start]
    starts += [] if expected is None else [_by_reference(correlation, expected)]
    best: tuple[float, np.ndarray] = (-np.inf, np.arange(len(correlation)))
    for order in itertools.chain(starts, _by_channels(correlation, block_size, seed)):
        order = grid.refine(correlation, order, block_size, block_size, rounds=4, steps=3)
        score = grid.smoothness(correlation, order, block_size, block_size)
        # An arrangement that is reached from two starts is unlikely to be a mere local optimum.
        agreed = abs(score - best[0]) < 1e-9
        best = max(best, (score, order), key=lambda pair: pair[0])
        if agreed:
            break
    order = best[1] if expected is None else _oriented(correlation, best[1], expected, block_size)
    return Arrangement(np.argsort(order).astype(np.int32), negative, best[0])


def _oriented(correlation: np.ndarray, order: np.ndarray, expected: np.ndarray, side: int) -> np.ndarray:
    """Turns, flips and exchanges the channels of an arrangement to best fit the correlations of plain images."""
    square = order.reshape(side, side, 3)
    views = [
        transform(square, *symmetry)[..., list(channels)].ravel()
        for symmetry, channels in itertools.product(SYMMETRIES, itertools.permutations(range(3)))
    ]
    return max(views, key=lambda view: np.sum(expected * correlation[np.ix_(view, view)]))


def _by_reference(correlation: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Finds the value in each place from the correlations between places in reference images.

    Umeyama (IEEE TPAMI 1988): corresponding values have similar components in the eigenvectors, up to sign.
    """
    (_, found), (_, target) = (np.linalg.eigh(matrix) for matrix in (correlation, expected))
    likeness = np.abs(target[:, -_EIGENVECTORS:]) @ np.abs(found[:, -_EIGENVECTORS:]).T
    start = linear_sum_assignment(likeness, maximize=True)[1]
    apart, template = (matrix - np.diag(np.diag(matrix)) for matrix in (correlation, expected))
    return grid.assign(apart, template, start, steps=_REFERENCE_STEPS)


def _by_channels(correlation: np.ndarray, side: int, seed: int) -> Iterator[np.ndarray]:
    """Finds the value in each place: separates and arranges one color channel, then adds the other two.

    The smoother a third of the values can be arranged, the more likely it is to be one channel.
    """
    parts = {
        tuple(np.flatnonzero(labels == label)) for labels in _channel_labels(correlation, seed) for label in range(3)
    }
    tried = []
    for part in map(np.array, sorted(parts)):
        inside = correlation[np.ix_(part, part)]
        placed = grid.place(inside, side, side, starts=2)
        tried.append((grid.smoothness(inside, placed, side, side), part))
    tried.sort(key=lambda pair: -pair[0])
    for _, part in tried[:_PARTS]:
        channel = part[grid.place(correlation[np.ix_(part, part)], side, side)]
        pixels = _complete(correlation, channel, side).reshape(-1, 3)
        yield pixels.reshape(-1)
        # Three channels determine the places better than one.
        together = np.mean([correlation[np.ix_(values, values)] for values in pixels.T], axis=0)
        again = pixels[grid.place(together, side, side)]
        yield _complete(correlation, again[:, 0], side)


def _channel_labels(correlation: np.ndarray, seed: int):
    """Yields divisions of the values into three equal parts: int [values]."""
    distance = np.sqrt(np.maximum(2 - 2 * correlation, 0))
    for neighbors in (5, 8, 14):
        yield _balanced(grid.laplacian(distance, neighbors), seed)
    # Eigenvectors relative to the first one: a component that separates the channels takes about three values.
    vectors = np.linalg.eigh(correlation)[1][:, ::-1]
    ratios = vectors[:, 1:13] / np.where(np.abs(vectors[:, :1]) > 1e-9, vectors[:, :1], 1e-9)
    ratios = (ratios - ratios.mean(0)) / np.maximum(ratios.std(0), 1e-9)
    spread = []
    for column in ratios.T:
        labels = _balanced(column[:, None], seed)
        spread.append(np.mean([column[labels == label].var() for label in range(3)]))
    best = np.argsort(spread)[:2]
    yield _balanced(ratios[:, best] / np.sqrt(np.maximum(np.array(spread)[best], 1e-9)), seed)


def _balanced(points: np.ndarray, seed: int) -> np.ndarray:
    """k-means with three clusters of equal size."""
    from sklearn.cluster import KMeans  # Takes half a second to import, which other attacks need not pay.

    size = len(points) // 3
    centers = KMeans(3, random_state=seed).fit(points).cluster_centers_
    labels = np.zeros(len(points), np.int64)
    for _ in range(3):
        cost = ((points[:, None] - centers[None]) ** 2).sum(-1)
        labels = linear_sum_assignment(np.repeat(cost, size, axis=1))[1] // size
        centers = np.stack([points[labels == label].mean(0) for label in range(3)])
    return labels


def _complete(correlation: np.ndarray, channel: np.ndarray, side: int) -> np.ndarray:
    """Adds the other two channels to the pixels of one channel: int [values] from int [pixels]."""
    others = np.setdiff1d(np.arange(len(correlation)), channel)
    # Values of the same pixel have similar correlations with all other pixels.
    profile = _standardize(correlation[np.ix_(channel, channel)])
    likeness = profile @ _standardize(correlation[np.ix_(others, channel)]).T / len(channel)
    places = linear_sum_assignment(np.repeat(likeness, 2, axis=0), maximize=True)
    pairs = others[places[1]].reshape(-1, 2)
    # Neighboring pixels decide which of the two values has which color, the clearest cases first.
    cells = np.arange(side * side).reshape(side, side)
    edges = np.concatenate(
        [
            np.stack([cells[:, :-1], cells[:, 1:]], -1).reshape(-1, 2),
            np.stack([cells[:-1], cells[1:]], -1).reshape(-1, 2),
        ]
    )
    one, two = pairs[edges[:, 0]], pairs[edges[:, 1]]
    straight = correlation[one[:, 0], two[:, 0]] + correlation[one[:, 1], two[:, 1]]
    crossed = correlation[one[:, 0], two[:, 1]] + correlation[one[:, 1], two[:, 0]]
    difference = straight - crossed
    weights = np.zeros((side * side, side * side))
    weights[edges[:, 0], edges[:, 1]] = 1e-6 + np.abs(difference).max() - np.abs(difference)
    flip = np.zeros((side * side, side * side), bool)
    flip[edges[:, 0], edges[:, 1]] = flip[edges[:, 1], edges[:, 0]] = difference < 0
    order, previous = breadth_first_order(minimum_spanning_tree(weights), 0, directed=False)
    flipped = np.zeros(side * side, bool)
    for cell in order[1:]:
        flipped[cell] = flipped[previous[cell]] ^ flip[cell, previous[cell]]
    pairs[flipped] = pairs[flipped][:, ::-1]
    return np.concatenate([channel[:, None], pairs], axis=1).reshape(-1)


def _standardize(rows: np.ndarray) -> np.ndarray:
    centered = rows - rows.mean(1, keepdims=True)
    return centered / np.maximum(centered.std(1, keepdims=True), 1e-9)
