import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.gradients import output_and_gradients, random_operands
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax import models
from ppvit_jax.models import products

sizes = st.integers(1, 20)
GPU = models.Target("gpu")


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(rows=sizes, inputs=sizes, outputs=sizes)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12), ("bfloat16", 1e-5)])
def test_dense_is_a_product_with_its_gradients(dtype, tolerance, rows, inputs, outputs):
    """This holds in bfloat16 too: sums of bfloat16 operands in float32 are exact up to float32's rounding."""
    with jax.enable_x64(dtype == "float64"):
        (x, kernel, g), arrays = random_operands(dtype, (2, rows, inputs), (inputs, outputs), (2, rows, outputs))
        actual = output_and_gradients(lambda x, kernel: products.dense(x, kernel, dtype), arrays[:2], arrays[2])
        expected = x @ kernel, g @ kernel.T, np.einsum("bri,bro->io", x, g)
        for ours, theirs in zip(actual, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * (1 + abs(theirs).max()))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12), ("bfloat16", 1e-5)])
def test_layers_of_one_input_are_products_with_their_gradients(dtype, tolerance):
    """This holds in bfloat16 too, as above; a bias is added in float32 on a CPU."""
    with jax.enable_x64(dtype == "float64"):
        shapes = [(7, 6), (6, 9), (9,), (6, 4), (7, 9), (7, 4)]
        (x, one, bias, two, g, h), arrays = random_operands(dtype, *shapes)

        @jax.jit
        def compute(x, one, bias, two, cotangents):
            outputs, pull_back = jax.vjp(
                lambda x, one, bias, two: products.linear(x, [(one, bias), (two, None)], dtype), x, one, bias, two
            )
            return *outputs, *pull_back(cotangents)

        actual = compute(*arrays[:4], tuple(arrays[4:]))
        expected = x @ one + bias, x @ two, g @ one.T + h @ two.T, x.T @ g, g.sum(0), x.T @ h
        for ours, theirs in zip(actual, expected, strict=True):
            np.testing.assert_allclose(np.float64(ours), theirs, rtol=0, atol=tolerance * (1 + abs(theirs).max()))


@pytest.mark.slow
def test_an_accelerator_rounds_values_and_sums_the_gradients_of_parameters_in_float32():
    _, arrays = random_operands("bfloat16", (5, 6), (6, 4), (4,))

    def apply(x, kernel, bias):
        return products.linear(x, [(kernel, bias)], "bfloat16", GPU)[0]

    result, pull_back = jax.vjp(apply, arrays[0].astype("bfloat16"), *arrays[1:])
    gradients = pull_back(jnp.ones_like(result))
    assert [array.dtype for array in (result, *gradients)] == ["bfloat16", "bfloat16", "float32", "float32"]
    np.testing.assert_allclose(gradients[1], np.outer(np.float64(arrays[0]).sum(0), np.ones(4)), rtol=1e-6)
    assert products.activation_dtype("bfloat16", GPU) == jnp.bfloat16
    assert products.activation_dtype("bfloat16") == jnp.float32


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("devices", "reduce_dtype", "rounds"), [(1, "bfloat16", False), (2, "float32", False), (2, "bfloat16", True)]
)
def test_several_devices_round_their_gradients_of_kernels_if_they_add_them_up_in_bfloat16(
    platform, devices, reduce_dtype, rounds
):
    _, (x, kernel, bias) = random_operands("bfloat16", (5, 6), (6, 4), (4,))
    target = models.Target(platform, devices, reduce_dtype=reduce_dtype)

    def apply(kernel, bias):
        return products.linear(x, [(kernel, bias)], "bfloat16", target)[0].astype(jnp.float32)

    _, pull_back = jax.vjp(apply, kernel.astype(jnp.float32), bias.astype(jnp.float32))
    gradient, bias_gradient = pull_back(jnp.ones((5, 4)))
    exact = jnp.outer(x.astype(jnp.float32).sum(0), jnp.ones(4))
    expected = exact.astype(jnp.bfloat16).astype(jnp.float32) if rounds else exact
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)
    assert (gradient.dtype, bias_gradient.dtype) == ("float32", "float32")
    assert rounds == bool((gradient == gradient.astype(jnp.bfloat16)).all())
