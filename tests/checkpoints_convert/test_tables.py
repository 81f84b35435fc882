"""Tables of names: each is one-to-one, and its tensors are those of the models."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from helpers.marks import mark_slow
from helpers.tiny import assert_same_tree, flatten, random_params

from checkpoints_convert.names import Entry, from_google, select, to_google, with_prefix
from checkpoints_convert.tables import NAMES, names_of
from ppvit_jax import models

MODELS = [
    ("ViT-B/4", {}),
    ("ViT-B/4", {"pool": "mean"}),
    ("DeiT-S/4-distilled", {}),
    ("DeiT-S/4-distilled", {"pool": "token"}),
    ("DeiT-S/4-III", {}),
    ("DINOv2-S/4", {}),
    ("DINOv2-g/4-registers", {"pool": "token_mean"}),
    ("SigLIP-B/4", {}),
    ("SigLIP-B/4", {"pool": "norm_mean"}),
    ("CLIP-B/4", {}),
]


def _config(name, **options) -> Any:
    config = models.parse_name(name, image_size=16, num_classes=3, options=options)
    return dataclasses.replace(config, hidden_size=16, layers=12, heads=2, mlp_size=24)


# Hugging Face has no DeiT III.
@pytest.mark.parametrize(
    ("name", "options", "program"),
    mark_slow(
        [(*model, "timm") for model in MODELS]
        + [(*model, "hugging_face") for model in MODELS if "III" not in model[0]],
        but=[(*MODELS[6], "timm"), (*MODELS[0], "hugging_face")],
    ),
)
def test_every_array_has_a_tensor_and_comes_back(name, options, program):
    config = _config(name, **options)
    table = getattr(names_of(config), program)
    assert len({entry.other for entry in table}) == len(table)
    arrays = flatten(random_params(config))
    state = from_google(arrays, table, layers=config.layers, shape=config)
    assert len({tensor.ctypes.data for tensor in state.values()}) == len(state)
    assert all(tensor.flags.c_contiguous for tensor in state.values())
    assert sum(tensor.size for tensor in state.values()) == sum(array.size for array in arrays.values())
    assert_same_tree(to_google(state, table, heads=config.heads, where="it"), arrays)


@pytest.mark.parametrize("title", NAMES)
def test_prefixes_of_wrapped_and_bare_encoders_lead_to_the_same_names(title):
    names = NAMES[title]
    first = names.prefixes[0]
    state = {entry.other.format(0): np.zeros(1) for entry in names.hugging_face if entry.other.startswith(first)}
    assert select(state, names) == (state, [])
    for prefix in names.prefixes[1:]:
        other = {prefix + name.removeprefix(first): tensor for name, tensor in state.items()}
        assert select(other, names) == (state, [])
        table = with_prefix(names.hugging_face, first, prefix)
        assert {entry.other.format(0) for entry in table} >= other.keys()


def test_a_tensor_that_no_table_has_is_kept_and_named():
    names = NAMES["CLIP"]
    chosen, left_out = select({"text_model.final_layer_norm.bias": np.zeros(1), "extra.weight": np.zeros(1)}, names)
    assert list(chosen) == ["extra.weight"] and left_out == ["text_model.final_layer_norm.bias"]
    with pytest.raises(Exception, match=r"it also has extra\.weight"):
        to_google(chosen, names.hugging_face, heads=2, where="it")


def test_an_entry_for_some_shapes_takes_the_place_of_the_usual_one():
    config = _config("ViT-B/4")
    table = (Entry("usual", ("a",)), Entry("other", ("a",), when=lambda shape: shape.layers == 12))
    for shape, name in ((None, "usual"), (config, "other"), (dataclasses.replace(config, layers=1), "usual")):
        assert list(from_google({"a": np.zeros(1)}, table, layers=1, shape=shape)) == [name]
