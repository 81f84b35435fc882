"""Places items on a grid, given only their pairwise correlations.

First, items get coordinates from their neighborhood graph, by distances along it (Isomap: Tenenbaum, de Silva and
Langford, Science 2000) and by its Laplacian (Belkin and Niyogi, Neural Computation 2003). Then fast approximate
quadratic assignment (Vogelstein et al., PLOS ONE 2015) fits the arrangement to a template of correlations, which is
measured on the arrangement itself.
"""

import itertools
from collections.abc import Iterator

import numpy as np
from scipy.optimize import linear_sum_assignment, quadratic_assignment
from scipy.sparse.csgraph import minimum_spanning_tree, shortest_path
from scipy.spatial.distance import pdist, squareform

_NEIGHBORS = (5, 8, 14)
_TURNS = 8
# Length in cells over which the correlations of the first template decay exponentially.
_LENGTH = 1.5


def place(correlation: np.ndarray, rows: int, columns: int, *, starts: int | None = None) -> np.ndarray:
    """Places items in the cells of a grid so that correlated items are near each other.

    Args:
      correlation: float [n, n], symmetric, with n = rows * columns.
      rows, columns: size of the grid.
      starts: number of initial arrangements to try; None for all.

    Returns:
      int64 [n], the item in each cell, in row-major order; known up to rotations and flips of the grid.
    """
    best, best_score = np.arange(len(correlation)), -np.inf
    for start in itertools.islice(_starts(correlation, rows, columns), starts):
        order = refine(correlation, start, rows, columns)
        score = smoothness(correlation, order, rows, columns)
        if score > best_score:
            best, best_score = order, score
    return best


def smoothness(correlation: np.ndarray, order: np.ndarray, rows: int, columns: int) -> float:
    """Returns the mean correlation of neighboring cells. For natural images the true arrangement is among the highest.

    Args:
      correlation: float [n, n], with n = rows * columns * channels.
      order: int [n], the item in each place; the channels of a cell are adjacent. Only items of the same channel are
        compared.
      rows, columns: size of the grid.
    """
    places = order.reshape(rows, columns, -1)
    across = correlation[places[:, :-1], places[:, 1:]]
    down = correlation[places[:-1], places[1:]]
    return float((across.sum() + down.sum()) / (across.size + down.size))


def refine(
    correlation: np.ndarray, order: np.ndarray, rows: int, columns: int, *, rounds: int = 12, steps: int = 30
) -> np.ndarray:
    """Improves an arrangement iteratively: measures how correlation falls with distance, then rearranges to match.

    Args:
      correlation: float [n, n], symmetric.
      order: int [n], the item in each place, as in `smoothness`.
      rows, columns: size of the grid.
      rounds: the largest number of iterations.
      steps: the largest number of Frank-Wolfe steps in an iteration.

    Returns:
      int64 [n], the new arrangement.
    """
    channels = len(order) // (rows * columns)
    apart = correlation - np.diag(np.diag(correlation))
    for turn in range(rounds):
        if turn or channels > 1:
            template = _template(correlation, order, rows, columns, channels)
        else:
            template = np.exp(-squareform(pdist(_cells(rows, columns))) / _LENGTH)
        np.fill_diagonal(template, 0)
        improved = assign(apart, template, order, steps)
        if np.array_equal(improved, order):
            improved = _exchange(apart, template, order)
            if turn and np.array_equal(improved, order):
                break
        order = improved
    return order


def assign(correlation: np.ndarray, template: np.ndarray, start: np.ndarray, steps: int) -> np.ndarray:
    """Rearranges items to increase the sum of template * correlation, by Frank-Wolfe steps.

    Args:
      correlation: float [n, n] between items.
      template: float [n, n] between places.
      start: int [n], the item in each place at the start.
      steps: the largest number of steps.

    Returns:
      int64 [n], an arrangement that is no worse than `start`.
    """
    result = quadratic_assignment(
        template,
        correlation,
        options={
            "maximize": True,
            "P0": np.eye(len(start))[start],
            "maxiter": steps,
            "tol": 1e-3,
            "rng": np.random.default_rng(0),
        },
    )
    before = np.sum(template * correlation[np.ix_(start, start)])
    return result.col_ind if result.fun > before else start


def _exchange(correlation: np.ndarray, template: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Makes the best exchange of two items while one improves the sum; both matrices have a zero diagonal."""
    order, ordered = start.copy(), correlation[np.ix_(start, start)]
    product = template @ ordered
    for _ in range(len(start)):
        own = np.diag(product)
        gain = product + product.T - own[:, None] - own[None, :] + 2 * template * ordered
        one, other = np.unravel_index(np.argmax(gain), gain.shape)
        if gain[one, other] <= 1e-9 * abs(own.sum()):
            break
        product += np.outer(template[:, one] - template[:, other], ordered[other] - ordered[one])
        for array in (product, ordered):
            array[:, [one, other]] = array[:, [other, one]]
        ordered[[one, other]] = ordered[[other, one]]
        order[[one, other]] = order[[other, one]]
    return order


def _template(correlation: np.ndarray, order: np.ndarray, rows: int, columns: int, channels: int) -> np.ndarray:
    """Returns the mean correlation at each distance, for each pair of channels: float [n, n] between places."""
    cells = np.repeat(_cells(rows, columns), channels, axis=0).astype(np.int64)
    channel = np.tile(np.arange(channels), rows * columns)
    distance = np.abs(cells[:, None] - cells[None])
    kind = (distance[..., 0] * columns + distance[..., 1]) * channels + channel[:, None]
    kind = kind * channels + channel[None]
    count = np.bincount(kind.ravel())
    total = np.bincount(kind.ravel(), correlation[np.ix_(order, order)].ravel())
    return (total / np.maximum(count, 1))[kind]


def _starts(correlation: np.ndarray, rows: int, columns: int) -> Iterator[np.ndarray]:
    distance = np.sqrt(np.maximum(np.diag(correlation)[:, None] + np.diag(correlation)[None] - 2 * correlation, 0))
    cells = _cells(rows, columns)
    for neighbors in _NEIGHBORS:
        for plane in (_isomap(distance, neighbors), laplacian(distance, neighbors)):
            yield _to_cells(plane, cells)


def _cells(rows: int, columns: int) -> np.ndarray:
    return np.stack(np.divmod(np.arange(rows * columns), columns), axis=1).astype(np.float64)


def _graph(distance: np.ndarray, neighbors: int) -> np.ndarray:
    """Returns the graph of nearest neighbors, plus a spanning tree that connects it: bool [n, n]."""
    nearest = np.argsort(distance, axis=1)[:, 1 : neighbors + 1]
    linked = minimum_spanning_tree(np.maximum(distance, 1e-9)).toarray() > 0
    linked[np.arange(len(distance))[:, None], nearest] = True
    return linked | linked.T


def _isomap(distance: np.ndarray, neighbors: int) -> np.ndarray:
    edges = np.where(_graph(distance, neighbors), np.maximum(distance, 1e-9), 0)
    squares = shortest_path(edges, directed=False) ** 2
    centered = squares - squares.mean(0) - squares.mean(1)[:, None] + squares.mean()
    values, vectors = np.linalg.eigh(-centered / 2)
    return vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 1e-12))


def laplacian(distance: np.ndarray, neighbors: int) -> np.ndarray:
    """Returns coordinates in a plane from distances [n, n], by the graph Laplacian: float64 [n, 2]."""
    scale = np.maximum(np.sort(distance, axis=1)[:, neighbors], 1e-9)
    weights = np.exp(-(distance**2) / (scale[:, None] * scale[None]))
    weights = np.where(_graph(distance, neighbors), weights, 1e-9)
    root = np.sqrt(weights.sum(1))
    vectors = np.linalg.eigh(-weights / (root[:, None] * root[None]))[1]
    return vectors[:, 1:3] / root[:, None]


def _to_cells(plane: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Returns the item in each cell, from coordinates in a plane that may be rotated against the grid."""
    left, _, _ = np.linalg.svd(plane - plane.mean(0), full_matrices=False)
    target = (cells - cells.mean(0)) / np.maximum(cells.std(0), 1e-9)
    found = []
    for angle in np.arange(_TURNS) * np.pi / (2 * _TURNS):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turned = left @ turn * np.sqrt(len(plane))
        cost = ((target[:, None] - turned[None]) ** 2).sum(-1)
        places, things = linear_sum_assignment(cost)
        found.append((cost[places, things].sum(), things))
    return min(found, key=lambda pair: pair[0])[1]
