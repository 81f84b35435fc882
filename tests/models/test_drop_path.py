"""Stochastic depth, compared with timm's models that drop the same branches."""

import dataclasses
import importlib
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.marks import mark_slow
from helpers.oracles import draw, file_tensors, read_tensors
from helpers.pytorch import timm, torch
from helpers.small_networks import small_config
from helpers.tiny import random_images, random_params, tiny_model

from ppvit_jax import models
from ppvit_jax.config import check
from ppvit_jax.errors import UserError
from ppvit_jax.models import encoder
from ppvit_jax.models.drop_path import branch_factors, drop_rates

DROP: Any = importlib.import_module("timm.layers.drop")


def _images(count):
    return (random_images(count, 16) / 127.5 - 1).astype(np.float32)


def _train(config, params, images, seed=0):
    train = jax.jit(models.build(config).train)
    return np.asarray(train(params, {}, images, jax.random.key(seed)).logits)


@pytest.mark.parametrize(("rate", "layers"), [(0.3, 12), (0.1, 1), (0.9, 2)])
def test_the_rates_are_those_of_timm(rate, layers):
    theirs = DROP.calculate_drop_path_rates(rate, layers)
    np.testing.assert_allclose(drop_rates(rate, layers), theirs, atol=1e-7)


def test_factors_are_zero_or_make_up_for_the_zeros():
    count = 20_000
    factors = np.asarray(branch_factors(jax.random.key(0), 0.4, 3, count))
    assert factors.shape == (3, 2, count)
    np.testing.assert_array_equal(factors[0], 1)
    for block, rate in ((1, 0.2), (2, 0.4)):
        for branch in factors[block]:
            np.testing.assert_allclose(np.unique(branch), [0, 1 / (1 - rate)], rtol=1e-6)
            # Five standard deviations of a mean.
            assert abs((branch == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / count)
        # The branches of a block are independent of each other.
        assert abs(np.mean((factors[block] == 0).all(0)) - rate**2) < 0.02


@pytest.mark.parametrize(
    ("case", "platform", "remat"),
    mark_slow(
        itertools.product(["ViT", "DINOv2"], ["cpu", "tpu"], ["none", "blocks"]), but=[("DINOv2", "cpu", "blocks")]
    ),
)
def test_the_branches_are_dropped_where_timm_drops_them(case, platform, remat, monkeypatch):
    """On a TPU the residual stream has another shape; only the code path is that of a TPU here."""
    if (platform, remat) == ("tpu", "blocks"):
        pytest.skip("the two do not concern each other")
    ours, theirs = {"ViT": ("ViT-S/4", "vit_small_patch16_224"), "DINOv2": ("DINOv2-S/4", "vit_small_patch14_dinov2")}[
        case
    ]
    shape: Any = models.parse_name(ours, image_size=16, num_classes=3)
    shape = dataclasses.replace(shape, layers=3, hidden_size=32, heads=2, mlp_size=128, drop_path=0.5, remat=remat)
    model = timm.create_model(
        theirs, img_size=16, patch_size=4, embed_dim=32, depth=3, num_heads=2, num_classes=3, drop_path_rate=0.5
    )
    if case == "ViT":
        for module in model.modules():
            if isinstance(module, torch.nn.GELU):
                module.approximate = "tanh"
    arrays = read_tensors(file_tensors(draw(model)), shape, "timm")
    params = {name: arrays[name] for name in models.parameter_shapes(shape)}

    factors = np.random.default_rng(0).integers(0, 2, (3, 2, 5)) / np.reshape([1, 0.75, 0.5], (3, 1, 1))
    monkeypatch.setattr(encoder, "branch_factors", lambda *arguments: jnp.asarray(factors, jnp.float32))
    pending = iter(factors[1:].reshape(-1, 5))
    monkeypatch.setattr(DROP, "drop_path", lambda x, *_: x * torch.tensor(next(pending)).float()[:, None, None])
    images = _images(5)
    with torch.no_grad():
        expected = model.train()(torch.tensor(images.transpose(0, 3, 1, 2).copy())).numpy()
    assert next(pending, None) is None
    nested = models.retarget(shape, models.Target(platform))
    tree = jax.tree.map(lambda leaf: arrays[leaf], _names(params))
    logits = _train(nested, tree, images)
    assert expected.std() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def _names(params):
    from flax.traverse_util import unflatten_dict

    return unflatten_dict({name: name for name in params}, sep="/")


@pytest.mark.slow
def test_training_drops_at_random_and_evaluation_never():
    plain = tiny_model()
    dropping: Any = models.set_training_mode(plain, drop_path=0.6, remat="none")
    params, images = random_params(plain), _images(4)
    first, again, other = (_train(dropping, params, images, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert abs(first - other).max() > 1e-3
    evaluated = [np.asarray(jax.jit(models.build(shape).apply)(params, images)) for shape in (plain, dropping)]
    np.testing.assert_array_equal(evaluated[0], evaluated[1])


@pytest.mark.slow
def test_without_drop_path_nothing_is_drawn_and_nothing_computed_again():
    params, images = random_params(tiny_model()), _images(2)

    def program(**mode):
        model = models.build(models.set_training_mode(tiny_model(), **mode))
        return str(jax.make_jaxpr(model.train)(params, {}, images, jax.random.key(0)))

    off = program(drop_path=0.0, remat="none")
    assert not any(word in off for word in ("random_bits", "random_fold_in", "remat")) and off.count("custom_vjp") > 4
    assert "random_bits" in program(drop_path=0.1, remat="none")
    assert program(drop_path=0.0, remat="blocks") != off


def test_parameters_keep_their_names():
    shapes = [
        models.parameter_shapes(models.set_training_mode(tiny_model(), drop_path=rate, remat=remat))
        for rate, remat in ((0.0, "none"), (0.3, "blocks"))
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("field", "value"), [("drop_path", 0.1), ("remat", "blocks")])
def test_other_models_are_refused(field, value):
    config = small_config("convmixer")
    setattr(config, field, value)
    with pytest.raises(UserError, match=rf"config\.{field}={value} needs a Vision Transformer"):
        check(config)
