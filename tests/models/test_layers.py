"""Arrays that the shared layers reject when they are traced."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from ppvit_jax.models import products
from ppvit_jax.models.adaptation_network import LEAdaptNet, smoothness_penalty
from ppvit_jax.models.attention import attention
from ppvit_jax.models.layers import BatchNorm, permutation_penalty
from ppvit_jax.models.pyramidnet import shake_drop


def _init(module: nn.Module, *shape: int, dtype=jnp.float32):
    images = jnp.ones(shape, dtype)
    return jax.eval_shape(lambda rng: module.init(rng, images, train=False), jax.random.key(0))


def _dense(inputs, kernel):
    return products.dense(inputs, kernel, "float32")


def _attention(query, key, value):
    return attention(query, key, value, "float32", "xla")


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (_dense, [(2, 3, 4), (5, 6)]),
        (_dense, [(2, 4), (4,)]),
        (_dense, [(2, 4), (4, 3, 2)]),
        (_attention, [(2, 3, 4)] * 3),
        (_attention, [(2, 3, 4, 5), (2, 6, 4, 5), (2, 6, 4, 5)]),
        (permutation_penalty, [(3, 4)]),
        (permutation_penalty, [(9,)]),
        (smoothness_penalty, [(2, 4, 5, 3)]),
        (smoothness_penalty, [(4, 4, 3)]),
        (lambda branch: shake_drop(branch, jax.random.key(0), 0.5), [(2, 8)]),
    ],
)
def test_arrays_of_other_shapes_are_refused(function, shapes):
    with pytest.raises(AssertionError):
        jax.eval_shape(function, *(jnp.ones(shape) for shape in shapes))


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (_dense, [(2, 4), (4, 3)]),
        (_attention, [(2, 3, 4, 5)] * 3),
        (permutation_penalty, [(4, 4)]),
        (smoothness_penalty, [(2, 4, 4, 3)]),
        (lambda branch: shake_drop(branch, jax.random.key(0), 0.5), [(2, 4, 4, 3)]),
    ],
)
def test_integers_are_refused(function, shapes):
    jax.eval_shape(function, *(jnp.ones(shape) for shape in shapes))
    with pytest.raises(AssertionError, match="type compatibility"):
        jax.eval_shape(function, *(jnp.ones(shape, jnp.int32) for shape in shapes))


def test_modules_refuse_what_is_no_image():
    _init(LEAdaptNet(), 2, 8, 8, 3)
    for shape in ((2, 8, 12, 3), (2, 8, 8, 4), (8, 8, 3), (2, 6, 6, 3)):
        with pytest.raises(AssertionError):
            _init(LEAdaptNet(), *shape)
    _init(BatchNorm(), 2, 8, 8, 3)
    with pytest.raises(AssertionError, match="type compatibility"):
        _init(BatchNorm(), 2, 8, 8, 3, dtype=jnp.uint8)
