"""Interpolation of position embeddings, compared with PyTorch's."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest
from helpers.pytorch import torch

from ppvit_jax import models
from ppvit_jax.errors import UserError
from ppvit_jax.models.position_embedding import resize_position_embedding


def _embedding(grid, prefix=1):
    return np.random.default_rng(grid).standard_normal((1, prefix + grid**2, 5)).astype(np.float32)


def _expected(embedding, old, new, prefix, antialias):
    grid = torch.tensor(embedding[:, prefix:].reshape(1, old, old, -1).transpose(0, 3, 1, 2))
    resized = torch.nn.functional.interpolate(
        grid, (new, new), mode="bicubic", align_corners=False, antialias=antialias
    )
    return resized.numpy().transpose(0, 2, 3, 1).reshape(1, new**2, -1)


# DINOv2 from 518 to 224, 98 and 1036 pixels, CLIP and SigLIP from 224 to 160 and 384 pixels, and the smallest grids.
@pytest.mark.parametrize(
    ("old", "new"), [(37, 16), (37, 7), (37, 74), (14, 10), (14, 24), (24, 14), (3, 4), (2, 3), (1, 3), (3, 1)]
)
@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("antialias", [False, True])
def test_cubic_interpolation_is_that_of_pytorch(old, new, prefix, antialias):
    embedding = _embedding(old, prefix)
    interpolation = "cubic_antialias" if antialias else "cubic"
    resized = resize_position_embedding(embedding, new, prefix_tokens=prefix, interpolation=interpolation)
    assert resized.dtype == np.float32
    np.testing.assert_array_equal(resized[:, :prefix], embedding[:, :prefix])
    np.testing.assert_allclose(
        resized[:, prefix:], _expected(embedding, old, new, prefix, antialias), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("interpolation", ["linear", "cubic", "cubic_antialias"])
def test_other_dtypes_stay_and_the_same_grid_is_unchanged(interpolation):
    for dtype in (ml_dtypes.bfloat16, np.float16, np.float64):
        embedding = _embedding(4).astype(dtype)
        resized = resize_position_embedding(embedding, 7, prefix_tokens=1, interpolation=interpolation)
        assert resized.dtype == dtype and resized.shape == (1, 50, 5)
        same = resize_position_embedding(embedding, 4, prefix_tokens=1, interpolation=interpolation)
        np.testing.assert_array_equal(same, embedding)


@pytest.mark.slow
def test_each_family_interpolates_as_its_own_code_does():
    expected = {
        "ViT-B/16": "linear",
        "DeiT-S/16-distilled": "cubic",
        "DINOv2-S/14": "cubic",
        "DINOv2-S/14-registers": "cubic_antialias",
        "SigLIP-B/16": "cubic",
        "CLIP-B/16": "cubic",
    }
    for name, interpolation in expected.items():
        config = dataclasses.replace(models.parse_name(name, image_size=112, num_classes=3), layers=1)
        family = models.family_of(config)
        config = dataclasses.replace(config, image_size=5 * config.patch_size)
        _, rows, width = models.parameter_shapes(config)[family.positions]
        prefix = rows - 25
        embedding = np.random.default_rng(0).standard_normal((1, prefix + 49, width))
        resized = models.resize_positions({family.positions: embedding}, config)[family.positions]
        np.testing.assert_array_equal(
            resized, resize_position_embedding(embedding, 5, prefix_tokens=prefix, interpolation=interpolation)
        )


def test_positions_without_prefix_that_are_no_square_grid_are_named():
    with pytest.raises(UserError, match="17 rows is not a square grid"):
        resize_position_embedding(np.zeros((1, 17, 4), np.float32), 7, prefix_tokens=0, interpolation="cubic")
