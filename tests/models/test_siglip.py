"""SigLIP and SigLIP 2 compared with timm's and transformers' own classes."""

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


def _config(name="SigLIP-B/16", size=SIZES[0], num_classes=0, fields=None, **options) -> Any:
    config = models.parse_name(name, image_size=size, num_classes=num_classes, options=options)
    return dataclasses.replace(config, **(fields or {}))


def _tiny(**options) -> Any:
    fields = {"hidden_size": 48, "layers": 2, "heads": 4, "mlp_size": 100}
    return _config(size=TINY_SIZES[0], fields=fields, **options)


def _vision(config):
    """Returns the fields of the image encoder's configuration; SigLIP 2 of fixed size has the same."""
    return transformers_shape(config) | {"hidden_act": "gelu_pytorch_tanh"}


def _encoder(config):
    return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**_vision(config)))


def _whole(kind, config):
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 30}
    return getattr(transformers, kind)(
        transformers.SiglipConfig(vision_config=_vision(config), text_config=text, num_labels=config.num_classes)
    )


@pytest.mark.slow
def test_features_of_the_base_model_are_those_of_timm_and_transformers():
    config = _config()
    # timm computes the exact GELU in some of its models, and the tanh form in others.
    theirs = of_timm("vit_base_patch16_siglip_224", act_layer="gelu_tanh")
    compare(config, SIZES, theirs=theirs, transformers=lambda: _encoder(config), interpolate_pos_encoding=True)


@pytest.mark.slow
def test_features_of_so400m_are_those_of_timm():
    config = _config("SigLIP-So400m/14", activation="gelu", fields={"layers": 2})
    compare(config, SIZES[:1], theirs=of_timm("vit_so400m_patch14_siglip_224", depth=2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_base_patch16_siglip_gap_224", {"pool": "norm_mean", "activation": "gelu"}),
        ("vit_so400m_patch16_siglip_gap_256", {"pool": "norm_mean"}),
        ("vit_so400m_patch16_siglip_256", {}),
    ],
)
def test_small_models_are_those_of_timm(name, options):
    shape = {"embed_dim": 48, "depth": 2, "num_heads": 4, "mlp_ratio": 100 / 48, "num_classes": 5}
    compare(_tiny(**options, num_classes=5), TINY_SIZES[:1], theirs=of_timm(name, **shape))


def test_the_mean_that_the_classifier_of_transformers_takes_needs_no_attention_pooling():
    config = _tiny(num_classes=5, pool="norm_mean")

    def whole():
        return _whole("SiglipForImageClassification", config)

    assert any(name.startswith("vision_model.head.") for name in file_tensors(whole()))
    compare(config, TINY_SIZES, transformers=whole, interpolate_pos_encoding=True)


@pytest.mark.slow
def test_the_image_encoder_is_taken_from_a_model_with_a_text_encoder():
    config = _tiny()
    whole = draw(_whole("SiglipModel", config))
    state = file_tensors(whole)
    chosen, left_out = select(state | {"vision_model.embeddings.position_ids": np.zeros(1)}, names_of(config))
    assert {name.partition(".")[0] for name in left_out} == {"text_model", "logit_scale", "logit_bias", "vision_model"}
    alone = _encoder(config)
    alone.load_state_dict(whole.vision_model.state_dict())
    expected, nothing = select(file_tensors(alone), names_of(config))
    assert not nothing and chosen.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(chosen[name], tensor)
    compare(config, TINY_SIZES, transformers=lambda: _encoder(config), interpolate_pos_encoding=True)
