import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.marks import mark_slow
from helpers.tiny import flatten, random_params

from ppvit_jax import checkpoint, keys, models
from ppvit_jax import config as configuration
from ppvit_jax.config import default_config, make_encryption, make_model
from ppvit_jax.errors import UserError
from ppvit_jax.experiments.table_rows import TABLES
from ppvit_jax.models.clip import CLIPConfig
from ppvit_jax.models.convmixer import ConvMixerConfig
from ppvit_jax.models.deit import DeiTConfig
from ppvit_jax.models.dinov2 import DINOv2Config
from ppvit_jax.models.neuracrypt import NeuraCryptConfig
from ppvit_jax.models.pyramidnet import PyramidNetConfig
from ppvit_jax.models.resnet import ResNetConfig
from ppvit_jax.models.siglip import SigLIPConfig

ROOT = Path(__file__).parents[2]
CONFIGS = [f"table{number}.py:{row.name}" for number, rows in TABLES.items() for row in rows] + ["neuracrypt.py"]
COMMON: dict[str, Any] = {"image_size": 32, "num_classes": 7, "dtype": "bfloat16"}


def _parse(name, options=None, **fields) -> Any:
    return models.parse_name(name, options=options, **(COMMON | fields))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-Micro/8", models.ViTConfig(8, 128, 6, 4, 512, **COMMON)),
        ("ViT-B_16", models.ViTConfig(16, 768, 12, 12, 3072, **COMMON)),
        ("DeiT-S/16-III", DeiTConfig(16, 384, 12, 6, 1536, activation="gelu", is_third=True, **COMMON)),
        ("DINOv2-g/8", DINOv2Config(8, 1536, 40, 24, 4096, activation="gelu", gated=True, **COMMON)),
        ("SigLIP-So400m/16", SigLIPConfig(16, 1152, 27, 16, 4304, **COMMON)),
        ("CLIP-L_16", CLIPConfig(16, 1024, 24, 16, 4096, activation="quick_gelu", epsilon=1e-5, **COMMON)),
        ("ConvMixer-256/8", ConvMixerConfig(256, 8, patch_size=2, kernel_size=5, **COMMON)),
        ("ResNet-18", ResNetConfig("cifar", **COMMON)),
        ("PyramidNet-110/270", PyramidNetConfig(depth=110, alpha=270, **COMMON)),
        ("NeuraCrypt-2048/16", NeuraCryptConfig(width=2048, encoding_patch_size=16, **COMMON)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_name_is_a_shape_of_its_family(name, expected):
    assert _parse(name) == expected
    assert type(_parse(name)) is type(expected)


def test_what_the_name_leaves_open_reaches_its_family_and_no_other():
    options = {
        "attention": "cudnn",
        "activation": "gelu",
        "epsilon": 1e-12,
        "pool": "mean",
        "patch_size": 4,
        "kernel_size": 3,
        "adaptive_matrix": "sinkhorn",
        "stem": "imagenet",
        "adaptation_network": "ele",
    }
    assert options.keys() == models.OPTIONS.keys()
    assert all(models.OPTIONS[name] != value for name, value in options.items())
    transformer = {"attention": "cudnn", "activation": "gelu", "epsilon": 1e-12, "pool": "mean"}
    names = ("ViT-Micro/8", "DeiT-Ti/16-III", "DINOv2-S/16-registers", "SigLIP-B/16", "CLIP-B/16")
    changed = dict.fromkeys(names, transformer) | {
        "ConvMixer-16/1": {"patch_size": 4, "kernel_size": 3, "adaptive_matrix": "sinkhorn"},
        "ResNet-18": {"stem": "imagenet"},
        "PyramidNet-8/12": {"adaptation_network": "ele"},
        "NeuraCrypt-32/8": {},
    }
    for name, fields in changed.items():
        assert _parse(name, options) == dataclasses.replace(_parse(name), **fields), name
    assert _parse("ViT-Micro/8", representation_size=5).representation_size == 5


def test_the_configuration_gives_sizes_and_options():
    config = default_config()
    config.update({"model": "ConvMixer-16/1", "image_size": 24, "dtype": "float64"})
    config.model_options.patch_size = 3
    expected = ConvMixerConfig(16, 1, patch_size=3, kernel_size=5, image_size=24, num_classes=4, dtype="float64")
    assert make_model(config, 4) == expected
    config.update({"model": "ViT-Micro/8", "representation_size": 6})
    assert vars(make_model(config, 4))["representation_size"] == 6


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ResNet-50",
        "resnet-18",
        "ResNet-18/2",
        "ConvMixer-256",
        "ConvMixer-256/8/2",
        "ConvMixer--2/8",
        "PyramidNet-110",
        "NeuraCrypt-16",
        "NeuraCrypt-2048/16\n",
        "MyViT-B/16",
    ],
)
def test_an_unknown_name_gives_one_line_with_those_that_are_known(name):
    with pytest.raises(
        UserError, match=r"unknown model .*ViT-SIZE/PATCH, DeiT-.*ConvMixer-WIDTH/DEPTH, ResNet-18, Pyra"
    ) as caught:
        _parse(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "fields", "message"),
    [
        (
            "ConvMixer-16/1",
            {"path_size": 4},
            {},
            "unknown model option path_size: use one of attention, activation, epsilon, pool, patch_size",
        ),
        ("ViT-Huge/16", {}, {}, "unknown model 'ViT-Huge/16': use ViT-SIZE/PATCH with SIZE one of Micro"),
        (
            "DeiT-S/16",
            {},
            {},
            "unknown model 'DeiT-S/16': use DeiT-SIZE/PATCH-distilled, DeiT-SIZE/PATCH-III with",
        ),
        ("DINOv2-S/14", {}, {}, "image size 32 is not a multiple of the patch size 14 of DINOv2-S/14: use.* 28 or 42"),
        ("SigLIP-B/16", {"pool": "token"}, {}, "has no token for config.model_options.pool=token: use mean"),
        ("CLIP-B/16", {"pool": "max"}, {}, "config.model_options has the pooling 'max': use one of token"),
        ("ViT-B/16", {}, {"image_size": 40}, "image size 40 is not a multiple of the patch size 16"),
        ("ConvMixer-16/1", {"patch_size": 5}, {}, "image size 32 is not a multiple of the patch size 5"),
        ("ConvMixer-16/1", {"patch_size": 0}, {}, "patch size 0"),
        ("ConvMixer-16/1", {"adaptive_matrix": "hard"}, {}, "adaptive matrix 'hard': use one of none, free"),
        (
            "ViT-Micro/8",
            {"activation": "relu"},
            {},
            "config.model_options has the activation 'relu': use one of gelu_t",
        ),
        ("ViT-Micro/8", {"epsilon": 0.0}, {}, "config.model_options has the epsilon 0.0: use a number above 0"),
        ("ResNet-18", {"stem": "wide"}, {}, "stem 'wide' of the ResNet: use one of cifar, imagenet"),
        ("PyramidNet-9/12", {}, {}, "use 6n"),
        ("PyramidNet-8/12", {}, {"image_size": 30}, "image size 30: use a multiple of 4"),
        ("PyramidNet-8/12", {"adaptation_network": "pe"}, {}, "unknown adaptation network 'pe': use one of none, le"),
        ("NeuraCrypt-32/5", {}, {}, "image size 32 is not a multiple of the patch size 5"),
    ],
)
def test_options_and_sizes_that_no_model_has_give_one_line(name, options, fields, message):
    with pytest.raises(UserError, match=message) as caught:
        models.build(_parse(name, options, **fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "patch_size", "input_shape", "has_statistics"),
    mark_slow(
        [
            ("ViT-Micro/8", 8, (16, 16, 3), False),
            ("ConvMixer-16/1", 4, (16, 16, 3), True),
            ("ResNet-18", 0, (16, 16, 3), True),
            ("PyramidNet-8/12", 0, (16, 16, 3), True),
            ("NeuraCrypt-32/8", 8, (4, 32), False),
        ],
        but=[("ConvMixer-16/1", 4, (16, 16, 3), True), ("NeuraCrypt-32/8", 8, (4, 32), False)],
    ),
)
def test_every_family_initialises_trains_and_applies(name, patch_size, input_shape, has_statistics):
    options = {"patch_size": 4, "adaptive_matrix": "free", "adaptation_network": "ele"}
    config = _parse(name, options, image_size=16, num_classes=3)
    assert config.patch_size == patch_size and models.input_shape(config) == input_shape
    model = models.build(config)
    assert model.config == config
    rng = jax.random.key(0)
    params, statistics = jax.eval_shape(model.init, rng), jax.eval_shape(model.init_statistics, rng)
    assert bool(flatten(statistics)) == has_statistics
    # At any compute dtype.
    assert {leaf.dtype for leaf in jax.tree.leaves((params, statistics))} == {np.dtype("float32")}
    images = jax.ShapeDtypeStruct((2, *input_shape), np.float32)
    logits = jax.eval_shape(model.apply, params, images, statistics)
    assert (logits.shape, logits.dtype) == ((2, 3), np.float32)
    output = jax.eval_shape(model.train, params, statistics, images, rng)
    assert (output.logits.shape, output.penalty.shape) == ((2, 3), ())
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (output.statistics, statistics)]
    assert shapes[0] == shapes[1]


@pytest.fixture(scope="module")
def secret_key():
    return keys.SecretKey(bytes(range(32)))


def test_there_is_a_configuration_for_every_row_of_the_papers_tables():
    assert {number: len(rows) for number, rows in TABLES.items()} == {2: 13, 3: 5}


@pytest.mark.parametrize("name", CONFIGS)
def test_model_and_encryption_of_every_configuration_go_together(name, secret_key):
    config = configuration.load(str(ROOT / "configs" / name))
    assert config.keys() == default_config().keys()
    file, _, row = name.partition(":")
    text = (ROOT / "configs" / file).read_text()
    assert "Command:" in text and "Expected:" in text
    assert f"configs/{file}" in text and f"runs/{file.removesuffix('.py')}" in text
    # The only variant that the model's weights follow.
    assert config.adapt == (row == "proposed_vit")

    model_config = make_model(config, 10)
    models.build(model_config)
    method = make_encryption(config, model_config)
    shape = (config.image_size, config.image_size, 3)
    assert (method is None) == row.startswith("plain")
    if method is not None:
        secret = method.derive(secret_key, height=config.image_size, width=config.image_size)
        numbers = jax.ShapeDtypeStruct((2,), np.uint32)
        encrypted = jax.eval_shape(method.encrypt, jax.ShapeDtypeStruct((2, *shape), np.uint8), secret, numbers)
        assert encrypted.shape[0] == 2
        shape = encrypted.shape[1:]
        if config.adapt:
            assert method.absorb(secret_key, height=config.image_size, width=config.image_size).alike
    assert shape == models.input_shape(model_config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--config.model=ConvMixer-0/8"], "begin at 1"),
        (["--config.model=NeuraCrypt-0/16"], "begin at 1"),
        (["--config.model_options.kernel_size=0"], "kernel_size is 0"),
        (["--config.model_options.patch_size=5"], "not a multiple of the patch size 5"),
        (["--config.model_options.adaptive_matrix=dense"], "adaptive matrix 'dense'"),
        (["--config.model=ResNet-18", "--config.model_options.stem=wide"], "stem 'wide'"),
        (
            ["--config.model=PyramidNet-110/270", "--config.model_options.adaptation_network=x"],
            "adaptation network 'x'",
        ),
        (["--config.model=PyramidNet-100/270"], "depth 100: use 6n \\+ 2"),
    ],
)
def test_shapes_that_a_family_cannot_have_are_named_before_the_run(overrides, message):
    with pytest.raises(UserError, match=message):
        configuration.load(str(ROOT / "configs" / "table2.py") + ":plain_convmixer", overrides)


@pytest.mark.slow
def test_a_class_token_without_a_position_gets_one_of_zeros():
    """timm's DINOv2 with registers has none; a model by its name has one."""
    named: Any = models.parse_name("DINOv2-S/14-registers", image_size=28, num_classes=3)
    config = dataclasses.replace(named, layers=1, hidden_size=16, heads=2, mlp_size=16)
    bare = dataclasses.replace(config, prefix_rows=0)
    arrays = flatten(random_params(bare))
    params = checkpoint.to_params(arrays, config, keep_head=True)
    images = np.random.default_rng(0).normal(size=(2, 28, 28, 3)).astype(np.float32)
    found, expected = (
        jax.jit(models.build(shape).apply)(tree, images)
        for shape, tree in ((config, params), (bare, unflatten_dict(arrays, sep="/")))
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
