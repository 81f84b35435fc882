"""DINOv2 compared with timm's and transformers' own classes."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from helpers.oracles import apply, compare, draw, file_tensors, of_timm, read_tensors, run
from helpers.pytorch import timm, transformers

from checkpoints_convert.names import select, to_google
from checkpoints_convert.tables import names_of
from ppvit_jax import models

SIZES = (518, 224)
TINY_SIZES = (84, 56)


def _config(name, size=SIZES[0], num_classes=0, pool="", **fields) -> Any:
    config = models.parse_name(name, image_size=size, num_classes=num_classes, options={"pool": pool})
    return dataclasses.replace(config, **fields)


def _tiny(name="DINOv2-S/14", **changes: Any) -> Any:
    fields: dict[str, Any] = {"hidden_size": 48, "layers": 2, "heads": 4, "mlp_size": 96} | changes
    return _config(name, TINY_SIZES[0], **fields)


def _of_transformers(suffix, config, **fields):
    kind = "Dinov2WithRegisters" if config.registers else "Dinov2"
    ratio = config.mlp_size / config.hidden_size
    shape = getattr(transformers, f"{kind}Config")(
        hidden_size=config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        mlp_ratio=round(1.5 * ratio if config.gated else ratio),
        use_swiglu_ffn=config.gated,
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_labels=config.num_classes,
        **fields,
    )
    return getattr(transformers, f"{kind}{suffix}")(shape)


@pytest.mark.slow
def test_features_of_the_small_model_are_those_of_timm_and_transformers():
    config = _config("DINOv2-S/14")
    theirs = of_timm("vit_small_patch14_dinov2.lvd142m")
    compare(config, SIZES, theirs=theirs, transformers=lambda: _of_transformers("Model", config))


@pytest.mark.slow
def test_features_with_registers_are_those_of_timm():
    config = _config("DINOv2-B/14-registers", layers=2, prefix_rows=0)
    compare(config, SIZES, theirs=of_timm("vit_base_patch14_reg4_dinov2.lvd142m", depth=2))


@pytest.mark.slow
def test_features_with_registers_are_those_of_transformers():
    config = _config("DINOv2-B/14-registers", 252, layers=2)
    compare(config, (252, 224), transformers=lambda: _of_transformers("Model", config))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model", "rows"),
    [("DINOv2-g/14", "", 1), ("DINOv2-g/14-registers", "_reg4", 0)],
    ids=["plain", "registers"],
)
def test_swiglu_is_that_of_timm(name, model, rows):
    config = _tiny(name, mlp_size=128, prefix_rows=rows)
    assert config.gated
    theirs = of_timm(f"vit_giant_patch14{model}_dinov2", embed_dim=48, depth=2, num_heads=4)
    compare(config, TINY_SIZES, theirs=theirs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("DINOv2-g/14", "Model"),
        ("DINOv2-g/14-registers", "ForImageClassification"),
        ("DINOv2-S/14", "ForImageClassification"),
        ("DINOv2-S/14-registers", "Model"),
    ],
)
def test_small_models_are_those_of_transformers(name, suffix):
    classes = {"num_classes": 5, "pool": "token_mean"} if suffix == "ForImageClassification" else {}
    config = _tiny(name, **classes)
    compare(config, TINY_SIZES, transformers=lambda: _of_transformers(suffix, config))


@pytest.mark.slow
def test_timm_interpolates_the_positions_of_models_with_registers_in_the_same_way():
    config = _tiny("DINOv2-S/14-registers", prefix_rows=0)
    model = timm.create_model(
        "vit_small_patch14_reg4_dinov2",
        img_size=84,
        embed_dim=48,
        depth=2,
        num_heads=4,
        mlp_ratio=2,
        dynamic_img_size=True,
    )
    arrays = read_tensors(file_tensors(draw(model)), config, "timm")
    images = np.random.default_rng(0).standard_normal((2, 56, 56, 3)).astype(np.float32)
    smaller = dataclasses.replace(config, image_size=56, num_classes=48)
    np.testing.assert_allclose(apply(arrays, smaller, images), run(model, images), rtol=0, atol=1e-5)


def test_the_authors_names_are_read_too():
    config = _tiny("DINOv2-g/14-registers", mlp_size=128)
    model = draw(timm.create_model("vit_giant_patch14_reg4_dinov2", img_size=84, embed_dim=48, depth=2, num_heads=4))
    state = file_tensors(model)
    expected = read_tensors(state, dataclasses.replace(config, prefix_rows=0), "timm")
    renamed = {
        name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3").replace("reg_token", "register_tokens"): tensor
        for name, tensor in state.items()
    }
    chosen, left_out = select(renamed | {"mask_token": np.zeros((1, 48), np.float32)}, names_of(config))
    assert left_out == ["mask_token"]
    arrays = to_google(chosen, names_of(config).timm, heads=4, where="the file")
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array)
