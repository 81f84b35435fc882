"""DeiT, with and without distillation, and DeiT III compared with timm's and transformers' own classes."""

import dataclasses
from typing import Any

import pytest
from helpers.oracles import compare, of_timm
from helpers.pytorch import transformers

from ppvit_jax import models

SIZES = (224, 160)
TINY_SIZES = (64, 48)


def _config(name, size=SIZES[0], num_classes=1000, fields=None, **options) -> Any:
    config = models.parse_name(name, image_size=size, num_classes=num_classes, options=options)
    return dataclasses.replace(config, **(fields or {}))


def _of_transformers(kind, config):
    return getattr(transformers, kind)(
        transformers.DeiTConfig(
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=config.mlp_size,
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_labels=config.num_classes,
            layer_norm_eps=config.epsilon,
        )
    )


@pytest.mark.slow
def test_the_small_distilled_model_is_that_of_timm_and_transformers():
    config = _config("DeiT-S/16-distilled")
    compare(
        config,
        SIZES,
        theirs=of_timm("deit_small_distilled_patch16_224"),
        transformers=lambda: _of_transformers("DeiTForImageClassificationWithTeacher", config),
        interpolate_pos_encoding=True,
    )


@pytest.mark.slow
def test_the_small_model_of_deit_iii_is_that_of_timm():
    config = _config("DeiT-S/16-III", fields={"layers": 2})
    compare(config, SIZES, theirs=of_timm("deit3_small_patch16_224", depth=2))


def test_the_small_model_without_distillation_is_that_of_timm():
    config = _config("ViT-S/16", activation="gelu", fields={"layers": 2})
    compare(config, SIZES, theirs=of_timm("deit_small_patch16_224", depth=2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "pool"), [("DeiTForImageClassificationWithTeacher", ""), ("DeiTForImageClassification", "token")]
)
def test_small_models_are_those_of_transformers(kind, pool):
    """A model that was fine-tuned without a teacher keeps the distillation token, and has one head."""
    fields = {"hidden_size": 48, "layers": 2, "heads": 4, "mlp_size": 100}
    config = _config("DeiT-Ti/16-distilled", TINY_SIZES[0], 5, fields, epsilon=1e-12, pool=pool)
    compare(config, TINY_SIZES, transformers=lambda: _of_transformers(kind, config), interpolate_pos_encoding=True)
