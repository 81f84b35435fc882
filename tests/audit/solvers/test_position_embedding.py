import numpy as np
import pytest

from ppvit_jax.audit import scoring
from ppvit_jax.audit.solvers import position_embedding
from ppvit_jax.encryption import Permutations
from ppvit_jax.encryption.blockwise import make_secret
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey


def _embedding(side, hidden=64, noise=0.3, seed=0):
    """Returns sines and cosines of the place, with noise: float [side * side, hidden]."""
    random = np.random.default_rng(seed)
    rows, columns = np.divmod(np.arange(side * side), side)
    frequency = 1 / 20 ** (np.arange(hidden // 4) / (hidden // 4))
    waves = [function(place[:, None] * frequency) for place in (rows, columns) for function in (np.sin, np.cos)]
    clean = np.concatenate([np.zeros((1, hidden)), np.concatenate(waves, axis=1)])
    return (clean + noise * clean.std() * random.standard_normal(clean.shape))[1:]


@pytest.mark.slow
@pytest.mark.parametrize("key", range(2))
def test_the_grid_is_read_off_a_smooth_embedding(key):
    side = 14
    embedding = _embedding(side, seed=key)
    block = SecretKey(bytes([key] * 32)).permutation("block", side**2)
    found = position_embedding.solve(embedding[block])
    places = scoring.compare_places(
        make_secret(Permutations(found), side, side, 1), make_secret(Permutations(block), side, side, 1), side, 1
    )
    assert places.blocks > 0.9 and places.neighbors > 0.9


@pytest.mark.slow
def test_an_embedding_without_structure_tells_nothing():
    side = 8
    embedding = np.random.default_rng(0).standard_normal((64, 256))
    block = SecretKey(bytes([9] * 32)).permutation("block", side**2)
    found = position_embedding.solve(embedding[block])
    places = scoring.compare_places(
        make_secret(Permutations(found), side, side, 1), make_secret(Permutations(block), side, side, 1), side, 1
    )
    assert places.neighbors < 0.3


def test_another_grid_is_refused():
    with pytest.raises(UserError, match="not of a square grid"):
        position_embedding.solve(np.zeros((7, 4)))
