"""Standardization and activations with gradients of their own, against JAX's derivatives of the formulas."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax.models.layer_norm import standardize


def _formula(x, epsilon):
    centered = x - x.mean(-1, keepdims=True)
    return centered / jnp.sqrt((centered**2).mean(-1, keepdims=True) + epsilon)


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    epsilon=st.sampled_from([1e-6, 1e-5, 0.1]),
)
def test_its_gradient_is_that_of_the_formula(shape, scale, epsilon):
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, g = scale * random.standard_normal(shape) + 3, random.standard_normal(shape)
        ours, theirs = (jax.vjp(lambda x, f=f: f(x, epsilon), x) for f in (standardize, _formula))
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-9, atol=1e-12)
        (ours,), (theirs,) = ours[1](g), theirs[1](g)
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9 * (1 + abs(theirs).max()))


@pytest.mark.slow
def test_scale_and_bias_make_it_flaxs_layer_normalization():
    random = np.random.default_rng(1)
    x = random.standard_normal((5, 12), np.float32) * 7 + 2
    params = {name: random.standard_normal(12, np.float32) for name in ("scale", "bias")}
    flax: Any = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False).apply({"params": params}, x)
    np.testing.assert_allclose(standardize(jnp.asarray(x), 1e-5) * params["scale"] + params["bias"], flax, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_constant_row_gives_zeros_and_finite_gradients(dtype):
    """Rows of padding are constant."""
    x = jnp.full((2, 8), 3, dtype)
    h, pull_back = jax.vjp(lambda x: standardize(x, 1e-6), x)
    (gradient,) = pull_back(jnp.zeros_like(h))
    assert h.dtype == gradient.dtype == x.dtype
    assert not h.any() and not gradient.any()
