"""Dropped patches: a model that keeps four patches is one of four patches, with their positions."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from helpers.tiny import random_params
from helpers.transformers import tiny_transformers

from ppvit_jax import models
from ppvit_jax.models.token_dropping import keep_patches

SHAPES = tiny_transformers(image_sizes=3)
FAST = ("ViT-B/8", "DINOv3-S/8")
KEPT = np.array([[0, 2, 5, 8], [7, 1, 3, 4]], np.int32)


def _assemble(images, patch, kept):
    """Returns images of 2x2 patches: those that are kept."""
    grid = images.reshape(2, 3, patch, 3, patch, 3).swapaxes(2, 3).reshape(2, 9, patch, patch, 3)
    chosen = np.stack([grid[i, numbers] for i, numbers in enumerate(kept)])
    return chosen.reshape(2, 2, 2, patch, patch, 3).swapaxes(2, 3).reshape(2, 2 * patch, 2 * patch, 3)


def _select_positions(params, family, kept):
    """Returns the parameters of the smaller model, which has the positions of the kept patches."""
    positions = models.leaf(params, family.positions)
    prefix = family.prefix_rows(positions.shape[1])
    rows = np.concatenate([np.arange(prefix), prefix + kept])
    return models.replace_leaf(params, family.positions, positions[:, rows])


@pytest.mark.slow
@pytest.mark.parametrize(
    "title", [pytest.param(title, marks=[] if title in FAST else pytest.mark.slow) for title in SHAPES]
)
def test_a_model_that_drops_patches_is_the_model_of_the_others(title):
    config: Any = SHAPES[title]
    family, patch = models.family_of(config), config.patch_size
    params = random_params(config)
    images = np.random.default_rng(0).standard_normal((2, 3 * patch, 3 * patch, 3)).astype(np.float32)
    options = {"xla_backend_optimization_level": 0}

    def logits(config, params, images, kept=None):
        train = jax.jit(models.build(config).train, compiler_options=options)
        return np.asarray(train(params, {}, images, jax.random.key(0), kept).logits)

    dropped = logits(config, params, images, KEPT)
    smaller = dataclasses.replace(config, image_size=2 * patch)
    for i, kept in enumerate(KEPT):
        alone = logits(smaller, _select_positions(params, family, kept), _assemble(images, patch, KEPT))[i]
        np.testing.assert_allclose(dropped[i], alone, atol=2e-5)
    assert abs(dropped - logits(config, params, images)).max() > 1e-3


def test_tokens_before_the_patches_and_padding_stay():
    tokens = np.arange(2 * 9 * 1).reshape(2, 9, 1)
    kept = np.array([[2, 0], [1, 3]], np.int32)
    # Two tokens, four patches, three rows of padding.
    np.testing.assert_array_equal(
        keep_patches(jax.numpy.asarray(tokens), jax.numpy.asarray(kept), 2, 4)[..., 0],
        [[0, 1, 4, 2, 6, 7, 8], [9, 10, 12, 14, 15, 16, 17]],
    )
    shared = keep_patches(jax.numpy.arange(9)[:, None], jax.numpy.asarray(kept), 2, 4)
    np.testing.assert_array_equal(shared[..., 0], [[0, 1, 4, 2, 6, 7, 8], [0, 1, 3, 5, 6, 7, 8]])
