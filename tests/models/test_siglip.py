"""SigLIP and SigLIP 2 compared with timm's and transformers' own classes."""

import dataclasses

import numpy as np
import pytest
from helpers.oracles import compare_with_timm, compare_with_transformers, draw, file_tensors
from helpers.pytorch import transformers

from checkpoints_convert.names import select
from checkpoints_convert.tables import names_of
from ppvit_jax import models

SIZES = (224, 160)
TINY_SIZES = (64, 48)


def _config(name="SigLIP-B/16", size=SIZES[0], num_classes=0, fields=None, **options):
    config = models.parse_name(name, image_size=size, num_classes=num_classes, options=options)
    return dataclasses.replace(config, **(fields or {}))


def _tiny(**options):
    fields = {"hidden_size": 48, "layers": 2, "heads": 4, "mlp_size": 100}
    return _config(size=TINY_SIZES[0], fields=fields, **options)


def _vision(config, **fields):
    """Returns the fields of the image encoder's configuration; SigLIP 2 of fixed size has the same."""
    return {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_size,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "hidden_act": "gelu_pytorch_tanh",
        **fields,
    }


def _whole(kind, config):
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 30}
    return getattr(transformers, kind)(
        transformers.SiglipConfig(vision_config=_vision(config), text_config=text, num_labels=config.num_classes)
    )


@pytest.mark.slow
def test_features_of_the_base_model_are_those_of_timm():
    # timm computes the exact GELU in some of its models, and the tanh form in others.
    compare_with_timm("vit_base_patch16_siglip_224", _config(activation="gelu"), SIZES)


@pytest.mark.slow
def test_features_of_the_base_model_are_those_of_transformers():
    config = _config()
    model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**_vision(config)))
    compare_with_transformers(model, config, SIZES, interpolate_pos_encoding=True)


@pytest.mark.slow
def test_features_of_so400m_are_those_of_timm():
    config = _config("SigLIP-So400m/14", activation="gelu", fields={"layers": 2})
    compare_with_timm("vit_so400m_patch14_siglip_224", config, (224, 168), depth=2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_base_patch16_siglip_gap_224", {"pool": "norm_mean", "activation": "gelu"}),
        ("vit_so400m_patch16_siglip_gap_256", {"pool": "norm_mean"}),
        ("vit_so400m_patch16_siglip_256", {}),
    ],
)
@pytest.mark.parametrize("num_classes", [0, 5])
def test_small_models_are_those_of_timm(name, options, num_classes):
    shape = {"embed_dim": 48, "depth": 2, "num_heads": 4, "mlp_ratio": 100 / 48, "num_classes": num_classes}
    compare_with_timm(name, _tiny(**options, num_classes=num_classes), TINY_SIZES, **shape)


def test_the_mean_that_the_classifier_of_transformers_takes_needs_no_attention_pooling():
    config = _tiny(num_classes=5, pool="norm_mean")
    model = _whole("SiglipForImageClassification", config)
    assert any(name.startswith("vision_model.head.") for name in file_tensors(model))
    compare_with_transformers(model, config, TINY_SIZES, interpolate_pos_encoding=True)


def test_the_image_encoder_is_taken_from_a_model_with_a_text_encoder():
    config = _tiny()
    whole = draw(_whole("SiglipModel", config))
    state = file_tensors(whole)
    chosen, left_out = select(state | {"vision_model.embeddings.position_ids": np.zeros(1)}, names_of(config))
    assert {name.partition(".")[0] for name in left_out} == {"text_model", "logit_scale", "logit_bias", "vision_model"}
    alone = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**_vision(config)))
    alone.load_state_dict(whole.vision_model.state_dict())
    expected, nothing = select(file_tensors(alone), names_of(config))
    assert not nothing and chosen.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(chosen[name], tensor)
    compare_with_transformers(alone, config, TINY_SIZES, interpolate_pos_encoding=True)
