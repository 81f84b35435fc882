"""DeiT, with and without distillation, and DeiT III compared with timm's and transformers' own classes."""

import dataclasses

import pytest
from helpers.oracles import compare_with_timm, compare_with_transformers
from helpers.pytorch import transformers

from ppvit_jax import models

SIZES = (224, 160)
TINY_SIZES = (64, 48)


def _config(name, size=SIZES[0], num_classes=1000, fields=None, **options):
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
        )
    )


@pytest.mark.slow
def test_the_small_distilled_model_is_that_of_timm():
    compare_with_timm("deit_small_distilled_patch16_224", _config("DeiT-S/16-distilled"), SIZES)


@pytest.mark.slow
def test_the_small_distilled_model_is_that_of_transformers():
    config = _config("DeiT-S/16-distilled", epsilon=1e-12)
    model = _of_transformers("DeiTForImageClassificationWithTeacher", config)
    compare_with_transformers(model, config, SIZES, interpolate_pos_encoding=True)


def test_the_small_model_of_deit_iii_is_that_of_timm():
    compare_with_timm("deit3_small_patch16_224", _config("DeiT-S/16-III", fields={"layers": 2}), SIZES, depth=2)


def test_the_small_model_without_distillation_is_that_of_timm():
    config = _config("ViT-S/16", activation="gelu", fields={"layers": 2})
    compare_with_timm("deit_small_patch16_224", config, SIZES, depth=2)


@pytest.mark.parametrize(
    ("kind", "pool"), [("DeiTForImageClassificationWithTeacher", ""), ("DeiTForImageClassification", "token")]
)
def test_small_models_are_those_of_transformers(kind, pool):
    """A model that was fine-tuned without a teacher keeps the distillation token, and has one head."""
    fields = {"hidden_size": 48, "layers": 2, "heads": 4, "mlp_size": 100}
    config = _config("DeiT-Ti/16-distilled", TINY_SIZES[0], 5, fields, epsilon=1e-12, pool=pool)
    compare_with_transformers(_of_transformers(kind, config), config, TINY_SIZES, interpolate_pos_encoding=True)
