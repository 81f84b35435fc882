import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax import models
from ppvit_jax.errors import UserError
from ppvit_jax.models import products

sizes = st.integers(1, 20)
GPU = models.Target("gpu")


def _arrays(dtype, *shapes):
    """Returns arrays with values that the compute dtype represents exactly, as float64 and as float32 or float64."""
    random = np.random.default_rng(0)
    wide = "float64" if dtype == "float64" else "float32"
    rounded = [jnp.asarray(random.standard_normal(shape), dtype) for shape in shapes]
    return [np.asarray(array, np.float64) for array in rounded], [array.astype(wide) for array in rounded]


def _gradients(function, arrays, cotangent):
    @jax.jit
    def compute(arrays, cotangent):
        output, pull_back = jax.vjp(function, *arrays)
        return output, *pull_back(cotangent)

    return [np.asarray(array, np.float64) for array in compute(tuple(arrays), cotangent)]


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(rows=sizes, inputs=sizes, outputs=sizes)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12), ("bfloat16", 1e-5)])
def test_dense_is_a_product_with_its_gradients(dtype, tolerance, rows, inputs, outputs):
    """This holds in bfloat16 too: sums of bfloat16 operands in float32 are exact up to float32's rounding."""
    with jax.enable_x64(dtype == "float64"):
        (x, kernel, g), arrays = _arrays(dtype, (2, rows, inputs), (inputs, outputs), (2, rows, outputs))
        actual = _gradients(lambda x, kernel: products.dense(x, kernel, dtype), arrays[:2], arrays[2])
        expected = x @ kernel, g @ kernel.T, np.einsum("bri,bro->io", x, g)
        for ours, theirs in zip(actual, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * (1 + abs(theirs).max()))


def _plain_attention(query, key, value):
    logits = jnp.einsum("bnhk,bmhk->bhnm", query, key) / np.sqrt(query.shape[-1])
    return jnp.einsum("bhnm,bmhk->bnhk", jax.nn.softmax(logits), value)


# In bfloat16 the weights and their gradients are also rounded, to 8 bits.
@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12), ("bfloat16", 0.02)])
@pytest.mark.parametrize("shape", [(8, 5, 3, 4), (3, 17, 1, 8), (1, 1, 2, 2)])
def test_attention_is_the_equation_with_its_gradients(dtype, tolerance, shape):
    with jax.enable_x64(True):
        precise, arrays = _arrays(dtype, *[shape] * 4)
        actual = _gradients(
            lambda query, key, value: products.attention(query, key, value, dtype, "xla"), arrays[:3], arrays[3]
        )
        expected = _gradients(_plain_attention, precise[:3], precise[3])
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * (1 + abs(theirs).max()))


def test_an_accelerator_computes_the_same_with_its_own_attention(monkeypatch):
    _, (query, key, value) = _arrays("float32", *[(4, 6, 2, 8)] * 3)
    here = products.attention(query, key, value, "float32", "xla")
    chosen = []
    library = jax.nn.dot_product_attention
    monkeypatch.setattr(
        jax.nn, "dot_product_attention", lambda *a, implementation: chosen.append(implementation) or library(*a)
    )
    there = products.attention(query, key, value, "float32", "cudnn", GPU)
    np.testing.assert_allclose(there, here, atol=1e-6)
    assert chosen == ["cudnn"]
    product = products.dense(query, key[0, 0].T, "bfloat16", GPU)
    assert products.activation_dtype("bfloat16", GPU) == product.dtype == jnp.bfloat16


def test_attention_that_is_not_to_be_had_is_named():
    with pytest.raises(UserError, match="unknown attention 'flash': use xla or cudnn"):
        models.build(tiny_model(attention="flash"))
    with pytest.raises(UserError, match="needs a CUDA GPU and dtype bfloat16, not cpu and bfloat16"):
        models.build(tiny_model(attention="cudnn", dtype="bfloat16"))
