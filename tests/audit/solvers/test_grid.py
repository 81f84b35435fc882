import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax.audit.solvers import grid


def _field(rows, columns, samples=400, seed=0, smooth=3.0):
    """Returns the correlations of a random field with similar neighbors: float [cells, cells]."""
    random = np.random.default_rng(seed)
    cells = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)
    distance = np.linalg.norm(cells[:, None] - cells[None], axis=-1)
    field = random.standard_normal((samples, rows * columns)) @ np.linalg.cholesky(np.exp(-distance / smooth)).T
    return np.corrcoef(field.T)


def _symmetric(order, rows, columns):
    """Returns the fraction of cells in place, under the best flip and rotation."""
    cells = np.arange(rows * columns).reshape(rows, columns)
    views = [np.rot90(view, turn) for view in (cells, cells.T) for turn in range(4)]
    return max(np.mean(view.ravel() == order) for view in views if view.shape == (rows, columns))


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (6, 9), (14, 14)])
def test_a_smooth_field_is_arranged(rows, columns):
    correlation = _field(rows, columns)
    order = np.random.default_rng(1).permutation(rows * columns)
    found = grid.place(correlation[np.ix_(order, order)], rows, columns)
    assert sorted(found) == list(range(rows * columns))
    assert _symmetric(order[found], rows, columns) > 0.9


def test_nothing_is_found_without_structure():
    random = np.random.default_rng(0)
    correlation = np.asarray(np.corrcoef(random.standard_normal((64, 5000))))
    assert _symmetric(grid.place(correlation, 8, 8), 8, 8) < 0.3


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 5), st.integers(2, 5), st.integers(1, 3), st.integers(0, 99))
def test_smoothness_is_the_mean_over_neighbors(rows, columns, channels, seed):
    random = np.random.default_rng(seed)
    n = rows * columns * channels
    correlation = random.standard_normal((n, n))
    correlation += correlation.T
    order = random.permutation(n)
    expected = []
    for row in range(rows):
        for column in range(columns):
            for channel in range(channels):
                here = order[(row * columns + column) * channels + channel]
                if column + 1 < columns:
                    expected.append(correlation[here, order[(row * columns + column + 1) * channels + channel]])
                if row + 1 < rows:
                    expected.append(correlation[here, order[((row + 1) * columns + column) * channels + channel]])
    assert grid.smoothness(correlation, order, rows, columns) == pytest.approx(np.mean(expected))


def test_refining_repairs_exchanges_and_keeps_a_right_arrangement():
    correlation = _field(8, 8, samples=4000)
    right = np.arange(64)
    np.testing.assert_array_equal(grid.refine(correlation, right, 8, 8), right)
    wrong = right.copy()
    wrong[[3, 40]], wrong[[10, 11]] = wrong[[40, 3]], wrong[[11, 10]]
    np.testing.assert_array_equal(grid.refine(correlation, wrong, 8, 8), right)
