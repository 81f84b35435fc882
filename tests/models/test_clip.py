"""CLIP and OpenCLIP compared with timm's and transformers' own classes."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from helpers.oracles import compare, draw, file_tensors, of_timm, transformers_shape
from helpers.pytorch import transformers

from checkpoints_convert.names import select
from checkpoints_convert.tables import names_of
from ppvit_jax import models

SIZES = (224, 160)
TINY_SIZES = (64, 48)
_GELUS = ("gelu", "quick_gelu")


def _config(size=SIZES[0], num_classes=0, fields=None, **options) -> Any:
    config = models.parse_name("CLIP-B/16", image_size=size, num_classes=num_classes, options=options)
    return dataclasses.replace(config, **(fields or {}))


def _tiny(**options) -> Any:
    return _config(TINY_SIZES[0], fields={"hidden_size": 48, "layers": 2, "heads": 4, "mlp_size": 100}, **options)


def _vision(config):
    return transformers_shape(config) | {"hidden_act": config.activation}


def _encoder(config):
    return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**_vision(config)))


def _whole(kind, config):
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 30}
    return getattr(transformers, kind)(
        transformers.CLIPConfig(vision_config=_vision(config), text_config=text, num_labels=config.num_classes)
    )


@pytest.mark.slow
def test_features_of_the_base_model_are_those_of_timm_and_transformers():
    config = _config()
    theirs = of_timm("vit_base_patch16_clip_quickgelu_224.openai", num_classes=0)
    compare(config, SIZES, theirs=theirs, transformers=lambda: _encoder(config), interpolate_pos_encoding=True)


@pytest.mark.slow
def test_the_base_model_of_openclip_is_that_of_timm():
    """The head of timm's model is the projection to the space of the texts."""
    config = _config(num_classes=512, activation="gelu", fields={"layers": 2})
    compare(config, SIZES, theirs=of_timm("vit_base_patch16_clip_224.laion2b", depth=2))


@pytest.mark.slow
@pytest.mark.parametrize("activation", _GELUS)
def test_small_models_are_those_of_timm_and_transformers(activation):
    quick = "quickgelu_" if activation == "quick_gelu" else ""
    shape = {"embed_dim": 48, "depth": 2, "num_heads": 4, "mlp_ratio": 100 / 48, "num_classes": 0}
    theirs = of_timm(f"vit_base_patch16_clip_{quick}224", **shape)
    config = _tiny(activation=activation)
    compare(config, TINY_SIZES, theirs=theirs, transformers=lambda: _encoder(config), interpolate_pos_encoding=True)


@pytest.mark.slow
def test_the_classifier_of_transformers_takes_the_mean_before_the_last_normalization():
    config = _tiny(num_classes=5, pool="raw_mean")
    compare(config, TINY_SIZES[:1], transformers=lambda: _whole("CLIPForImageClassification", config))


@pytest.mark.parametrize("kind", ["CLIPModel", "CLIPVisionModelWithProjection"])
def test_the_image_encoder_is_taken_from_a_model_with_more(kind):
    config = _tiny()
    if kind == "CLIPModel":
        whole = _whole(kind, config)
    else:
        whole = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**_vision(config)))
    chosen, left_out = select(file_tensors(draw(whole)), names_of(config))
    more = {"text_model", "logit_scale", "text_projection"} if kind == "CLIPModel" else set()
    assert {name.partition(".")[0] for name in left_out} == {"visual_projection", *more}
    alone = _encoder(config)
    alone.load_state_dict(whole.vision_model.state_dict())
    expected, _ = select(file_tensors(alone), names_of(config))
    assert chosen.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(chosen[name], tensor)
