"""DINO and MAE, which are Vision Transformers with the exact GELU, compared with timm's and transformers' classes."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from helpers.oracles import apply, compare, draw, file_tensors, of_timm, read_tensors, transformers_shape
from helpers.pytorch import torch, transformers

from checkpoints_convert.names import select
from checkpoints_convert.tables import names_of
from ppvit_jax import models

SIZES = (224, 160)
TINY_SIZES = (64, 48)
_TINY = {"hidden_size": 48, "layers": 2, "heads": 4, "mlp_size": 96}


def _config(name="ViT-S/16", size=SIZES[0], num_classes=0, fields=None, **options) -> Any:
    options = {"activation": "gelu"} | options
    config = models.parse_name(name, image_size=size, num_classes=num_classes, options=options)
    return dataclasses.replace(config, **(fields or {}))


def _shape(config):
    return transformers_shape(config) | {"num_labels": config.num_classes}


@pytest.mark.slow
def test_features_of_dino_are_those_of_timm():
    compare(_config(fields={"layers": 2}), SIZES, theirs=of_timm("vit_small_patch16_224.dino", depth=2))


@pytest.mark.slow
def test_dino_is_the_model_of_transformers():
    config = _config(size=TINY_SIZES[0], num_classes=5, fields=_TINY, epsilon=1e-12)
    compare(
        config,
        TINY_SIZES[:1],
        transformers=lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**_shape(config))),
    )


@pytest.mark.slow
def test_features_of_mae_are_those_of_timm():
    config = _config("ViT-B/16", fields={"layers": 2})
    compare(config, SIZES, theirs=of_timm("vit_base_patch16_224.mae", depth=2))


def test_a_fine_tuned_mae_normalizes_the_mean_of_its_patches_as_timm():
    config = _config(size=TINY_SIZES[0], num_classes=5, fields=_TINY, pool="mean")
    shape = {"embed_dim": 48, "depth": 2, "num_heads": 4, "mlp_ratio": 2, "num_classes": 5}
    compare(config, TINY_SIZES[:1], theirs=of_timm("vit_base_patch16_224.mae", global_pool="avg", **shape))


@pytest.mark.slow
def test_the_encoder_is_taken_from_the_mae_of_transformers():
    config = _config(size=TINY_SIZES[0], num_classes=48, fields=_TINY, epsilon=1e-12)
    decoder = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = draw(
        transformers.ViTMAEForPreTraining(
            transformers.ViTMAEConfig(
                **_shape(config), mask_ratio=0.0, **{f"decoder_{name}": value for name, value in decoder.items()}
            )
        )
    )
    state = file_tensors(model)
    _, left_out = select(state, names_of(config))
    assert left_out and all(name.startswith("decoder.") for name in left_out)
    arrays = read_tensors(state, config, "hugging_face")
    images = np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)
    with torch.no_grad():
        # Patches stay in the order of the noise.
        tokens = model.vit(
            torch.as_tensor(images.transpose(0, 3, 1, 2).copy()), noise=torch.arange(16.0).repeat(2, 1)
        ).last_hidden_state
    np.testing.assert_allclose(apply(arrays, config, images), tokens[:, 0].numpy(), rtol=0, atol=1e-4)
