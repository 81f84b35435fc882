"""Descriptions of the model families, and the adaptation of a family known only by its description."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.marks import mark_slow
from helpers.tiny import assert_same_tree, flatten, random_images, random_params
from helpers.transformers import tiny_transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax import checkpoint, models
from ppvit_jax.adaptation import adapt, rekey, restore
from ppvit_jax.encryption import create
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey
from ppvit_jax.models import families, vit
from ppvit_jax.models.family import Family
from ppvit_jax.models.model import Model, from_linen

KEY, OTHER = SecretKey(bytes(32)), SecretKey(bytes(range(32)))
NAMES = {
    "ViT-Micro/8": "Vision Transformer",
    "DeiT-Ti/16-distilled": "DeiT",
    "DINOv2-S/14": "DINOv2",
    "DINOv3-S/16": "DINOv3",
    "SigLIP-B/16": "SigLIP",
    "CLIP-B/16": "CLIP",
    "ConvMixer-16/2": "ConvMixer",
    "ResNet-18": "ResNet",
    "PyramidNet-8/12": "PyramidNet",
    "NeuraCrypt-32/8": "NeuraCrypt classifier",
}


def _config(name, **options):
    size = 28 if name.startswith("DINOv2") else 16
    options = {"patch_size": 4, "kernel_size": 3, **options}
    return models.parse_name(name, image_size=size, num_classes=3, options=options)


CONFIGS = [
    *tiny_transformers().values(),
    *map(_config, NAMES),
    *(_config("ConvMixer-16/2", adaptive_matrix=kind) for kind in ("free", "softmax", "sinkhorn")),
    models.parse_name("ViT-Micro/8", image_size=16, num_classes=3, representation_size=5),
]


def test_every_family_is_in_the_list_once_and_shares_no_name_or_class():
    assert [family.title for family in families.FAMILIES] == list(NAMES.values())
    # The transformers share their options; the configuration has the defaults of the first family.
    options = dict.fromkeys(option for family in families.FAMILIES for option in family.options)
    assert list(options) == list(models.OPTIONS)
    for option, default in models.OPTIONS.items():
        assert default == next(family.options[option] for family in families.FAMILIES if option in family.options)
    assert len({family.config for family in families.FAMILIES}) == len(families.FAMILIES)
    for name, title in NAMES.items():
        config = _config(name)
        assert models.family_of(config).title == title and models.model_name(config) == name


@pytest.mark.parametrize("config", mark_slow(CONFIGS, but=[CONFIGS[0], CONFIGS[-4]]), ids=models.model_name)
def test_described_parameters_are_those_of_the_model(config):
    family, shapes = models.family_of(config), models.parameter_shapes(config)
    blocks = (config.image_size // config.patch_size) ** 2 if config.patch_size else 0
    hidden, fields = 0, vars(config)
    if family.patch_kernel:
        *patch, hidden = shapes[family.patch_kernel]
        assert patch == [config.patch_size, config.patch_size, 3]
        assert shapes.get(family.patch_bias) == ((hidden,) if family.patch_bias else None)
    if family.positions:
        rows = shapes[family.positions][1]
        width = hidden if family.positions not in family.fixed else hidden // fields["heads"] // 2
        assert shapes[family.positions] == (1, family.prefix_rows(rows) + blocks, width)
        assert family.prefix_tokens in (None, family.prefix_rows(rows))
    if family.mixing_matrix in shapes:
        assert shapes[family.mixing_matrix] == (blocks, blocks)
    assert shapes[f"{family.head}/kernel"][-1] == config.num_classes
    assert any(landmark in shapes for landmark in family.landmarks)
    assert {name for name in shapes if name.startswith(family.heads)} >= {f"{family.head}/kernel"}
    assert set(family.recorded) <= family.options.keys() <= vars(config).keys()
    present = {layer for layer in family.optional if any(name.startswith(f"{layer}/") for name in shapes)}
    assert ("pre_logits" in present) == (fields.get("representation_size") is not None)
    assert ("MAPHead_0" in present) == (family.title == "SigLIP" and not fields["pool"])
    for ending in family.encoder_outputs:
        kernels = [name for name in shapes if name.startswith(f"{family.encoder}/") and name.endswith(ending)]
        assert kernels and {shapes[name][-1] for name in kernels} == {hidden}
    # A family whose shape can be inferred has a patch embedding to adapt; any other gives a reason.
    assert (family.infer is None) == (not family.patch_kernel) == bool(family.limits)


@pytest.mark.parametrize("config", mark_slow(CONFIGS, but=[CONFIGS[0], CONFIGS[-4]]), ids=models.model_name)
def test_a_model_is_recognized_by_its_parameters(config):
    names, family = models.parameter_shapes(config), models.family_of(config)
    arrays = {name: np.zeros(1) for name in names}
    assert models.recognize(arrays) is models.recognize(unflatten_dict(arrays, sep="/")) is family


@settings(deadline=None, max_examples=50)
@given(config=st.sampled_from(CONFIGS), data=st.data())
def test_a_part_of_a_model_with_a_landmark_is_never_taken_for_another_familys(config, data):
    family = models.family_of(config)
    names = data.draw(st.sets(st.sampled_from(sorted(models.parameter_shapes(config)))))
    arrays = {name: np.zeros(1) for name in {*names, *family.landmarks, family.patch_kernel} - {""}}
    assert models.recognize(unflatten_dict(arrays, sep="/")) is family


def test_a_family_that_shares_the_names_of_another_is_told_by_its_landmarks(monkeypatch):
    registers = dataclasses.replace(vit.FAMILY, prefix_tokens=5, landmarks=("cls", "registers"))
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, registers))
    params = random_params(_config("ViT-Micro/8"))
    assert models.recognize(params) is vit.FAMILY
    assert models.recognize(params | {"registers": np.zeros((1, 4, 128))}) is registers


def test_what_has_no_names_of_a_family_is_of_none():
    for tree in ({}, {"stem": {}}, {"embedding": np.zeros(3)}, {"head": {"kernel": np.zeros((2, 2))}}):
        assert models.recognize(tree) is None


@pytest.mark.parametrize("kind", ["none", "free", "softmax", "sinkhorn"])
def test_the_shape_of_a_convmixer_is_read_off_its_arrays_and_metadata(kind):
    config = _config("ConvMixer-16/2", adaptive_matrix=kind)
    arrays, options = flatten(random_params(config)), models.recorded_options(config)
    assert options == ({} if kind == "none" else {"adaptive_matrix": kind})
    said = {"where": "it", "image_size": 16 if kind == "none" else 0, "options": options}
    assert models.infer_config(arrays, **said) == config
    headless = {name: array for name, array in arrays.items() if not name.startswith("head/")}
    assert models.infer_config(headless, **said) == dataclasses.replace(config, num_classes=0)
    message = "does not record the size of its images" if kind == "none" else "does not record the form of its adaptive"
    for wrong in ({}, {"adaptive_matrix": "hard"}):
        with pytest.raises(UserError, match=message):
            models.infer_config(arrays, where="it", options=wrong)
    for name in ("block_0/depthwise/kernel", "embedding/kernel"):
        with pytest.raises(UserError, match=f"it is not a ConvMixer: it lacks {name}"):
            models.infer_config({n: a for n, a in arrays.items() if n != name}, **said)


@pytest.mark.parametrize("name", ["ResNet-18", "PyramidNet-8/12", "NeuraCrypt-32/8"])
def test_families_that_cannot_be_read_back_say_why(name):
    config = _config(name)
    arrays = {name: np.zeros(1) for name in models.parameter_shapes(config)}
    with pytest.raises(
        UserError, match=r"it is a .*cannot be inferred from .*, because it.*; use ViT-SIZE/PATCH, .* or Conv"
    ):
        models.infer_config(arrays, where="it")


@dataclasses.dataclass(frozen=True)
class _Config:
    """Model of a family that this package lacks: `prefix` tokens before the patches, and a dense layer."""

    prefix: int
    image_size: int = 16
    patch_size: int = 4
    num_classes: int = 3
    dtype: str = "float32"


class _Module(nn.Module):
    config: _Config

    @nn.compact
    def __call__(self, images, train):
        batch, patch = len(images), self.config.patch_size
        x = images.reshape(batch, -1, patch, images.shape[2] // patch, patch, 3).swapaxes(2, 3)
        x = nn.DenseGeneral(16, axis=(-3, -2, -1), name="stem")(x.reshape(batch, -1, patch, patch, 3))
        if self.config.prefix:
            prefix = self.param("prefix", nn.initializers.normal(), (self.config.prefix, 16))
            x = jnp.concatenate([jnp.tile(prefix, (batch, 1, 1)), x], axis=1)
        x = x + self.param("places", nn.initializers.normal(), (1, *x.shape[1:]))
        x = nn.MultiHeadDotProductAttention(2, name="attention")(jnp.tanh(x))
        return nn.Dense(self.config.num_classes, name="answer")(jnp.tanh(x[:, 0] if self.config.prefix else x.mean(1)))


def _build(config: _Config) -> Model:
    return from_linen(config, _Module(config), (config.image_size, config.image_size, 3))


def _family(prefix):
    return Family(
        title="made-up model",
        names="MadeUp-PREFIX",
        pattern=r"MadeUp-(?P<prefix>\d+)",
        config=_Config,
        build=_build,
        name=lambda config: f"MadeUp-{config.prefix}",
        infer=lambda stored: _Config(prefix),
        patch_kernel="stem/kernel",
        patch_bias="stem/bias",
        positions="places",
        prefix_tokens=prefix,
        head="answer",
        landmarks=("attention/out/kernel",),
    )


@pytest.mark.parametrize("prefix", mark_slow([0, 2, 5], but=[2]))
def test_a_new_family_is_adapted_exactly_by_its_description_alone(monkeypatch, prefix):
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, _family(prefix)))
    config = _Config(prefix)
    params, images = random_params(config), random_images(4, 16)
    assert models.recognize(params) is families.FAMILIES[-1]

    def logits(params, images):
        return np.asarray(models.build(config).apply(params, np.asarray(images, np.float32) / 127.5 - 1))

    plain = logits(params, images)
    assert plain.std() > 0.01
    for spec in ("bs", "ps", "bs+ps+np", "etc:shared=True"):
        method = create(spec, 4)
        assert method is not None
        old, new = (method.absorb(key, height=16, width=16) for key in (KEY, OTHER))
        first, second = (method.encrypt(images, method.derive(key, height=16, width=16)) for key in (KEY, OTHER))
        adapted = adapt(params, old)
        np.testing.assert_allclose(logits(adapted, first), plain, rtol=0, atol=1e-5)
        assert abs(logits(params, first) - plain).max() > 1e-3
        np.testing.assert_allclose(logits(rekey(adapted, old, new), second), plain, rtol=0, atol=1e-5)
        assert_same_tree(restore(adapted, old), params)
        np.testing.assert_array_equal(adapted["places"][:, :prefix], params["places"][:, :prefix])


@pytest.mark.parametrize("prefix", [0, 2])
def test_the_positions_of_a_new_family_are_resized_and_its_head_made_new(monkeypatch, prefix):
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, _family(prefix)))
    larger = _Config(prefix, image_size=24, num_classes=5)
    arrays = flatten(random_params(_Config(prefix)))
    params = checkpoint.to_params(arrays, larger, keep_head=False)
    assert params["places"].shape == (1, prefix + 36, 16) and not params["answer"]["kernel"].any()
    np.testing.assert_array_equal(params["places"][:, :prefix], arrays["places"][:, :prefix])
    # The corners stay in place.
    corners = [0, 3, 12, 15], [0, 5, 30, 35]
    for before, after in zip(*corners, strict=True):
        np.testing.assert_allclose(params["places"][0, prefix + after], arrays["places"][0, prefix + before], atol=1e-6)
    assert models.parse_name(f"MadeUp-{prefix or 1}", image_size=16, num_classes=3) == _Config(prefix or 1)


def test_images_of_another_shape_are_noticed_when_a_model_is_traced():
    config = _config("ResNet-18")
    params, statistics = (
        random_params(config),
        jax.eval_shape(models.build(config).init_statistics, jax.random.key(0)),
    )
    with pytest.raises(AssertionError):
        jax.eval_shape(models.build(config).apply, params, np.zeros((1, 24, 24, 3), np.float32), statistics)
