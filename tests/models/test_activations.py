"""Activations and their gradients against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ppvit_jax.models.activations import ACTIVATIONS, activate

_TORCH = {
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "gelu": torch.nn.functional.gelu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_gradients_are_those_of_pytorch(name):
    x = np.concatenate([np.linspace(-9, 9, 61), [-60, 0, 60]])
    there = torch.tensor(x, requires_grad=True)
    expected = _TORCH[name](there)
    expected.sum().backward()
    with jax.enable_x64(True):
        values, pull_back = jax.vjp(lambda x: activate(x, name), jnp.asarray(x))
        (gradient,) = pull_back(jnp.ones_like(values))
        np.testing.assert_allclose(values, expected.detach().numpy(), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(gradient, np.asarray(there.grad), rtol=1e-12, atol=1e-12)


def test_the_backward_pass_keeps_the_input_alone():
    """Linearization would keep the tanh and its polynomial as well."""
    x = jnp.ones((3, 5))
    _, pull_back = jax.vjp(lambda x: activate(x, "gelu_tanh"), x)
    assert [leaf.shape for leaf in jax.tree.leaves(pull_back) if hasattr(leaf, "shape")] == [(3, 5)]
