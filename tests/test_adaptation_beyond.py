"""Adaptation beyond the paper: inversions under any normalization, ConvMixer, and models that are rejected."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers.marks import mark_slow
from helpers.tiny import assert_close_tree, compiled, flatten, random_images, random_params, tiny_model

from ppvit_jax import models
from ppvit_jax.adaptation import adapt, inversion_offset, rekey, restore
from ppvit_jax.config import default_config
from ppvit_jax.data.preprocess import normalize_images
from ppvit_jax.encryption import parse
from ppvit_jax.encryption.encryption_then_compression import EncryptionThenCompression
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey
from ppvit_jax.training.step import compile_steps

KEY, OTHER = SecretKey(bytes(32)), SecretKey(bytes(range(32)))


def _encrypted(spec, images, key, patch_size):
    method = parse(spec, patch_size)
    secret = method.derive(key, height=images.shape[1], width=images.shape[2])
    return method.encrypt(images, secret)


def _permutations(spec, key, config):
    return key.permutations(spec, image_size=config.image_size, patch_size=config.patch_size)


@pytest.mark.parametrize(
    ("spec", "mean", "std"),
    mark_slow(
        [
            (spec, *moments)
            for spec in ("np", "bs+ps+np", "etc:sub_block_size=2,shared=True")
            for moments in ((0.5, 0.5), (0.5, 0.25), (0.4, 0.3), (0.0, 1.0))
        ],
        but=[("np", 0.5, 0.5), ("bs+ps+np", 0.4, 0.3)],
    ),
)
def test_inversions_are_absorbed_under_any_normalization_that_channels_share(spec, mean, std):
    with jax.enable_x64(True):
        config = tiny_model(dtype="float64")
        params, images = random_params(config, dtype=np.float64), random_images(4, 16)
        offset = inversion_offset(mean, std)
        assert (offset == 0) == (mean == 0.5)
        model = compiled(models.build(config))

        def logits(params, images):
            return np.asarray(model.apply(params, normalize_images(images, (mean,) * 3, (std,) * 3, "float64")))

        plain = logits(params, images)
        first, second = (_permutations(spec, key, config) for key in (KEY, OTHER))
        assert first.negative is not None and first.negative.any()
        adapted = adapt(params, first, offset)
        encrypted = _encrypted(spec, images, KEY, 4)
        np.testing.assert_allclose(logits(adapted, encrypted), plain, rtol=0, atol=1e-12)
        bias_moves = bool(abs(adapted["embedding"]["bias"] - params["embedding"]["bias"]).max() > 1e-3)
        assert bias_moves == (mean != 0.5)
        assert_close_tree(restore(adapted, first, offset), params, 1e-12)
        rekeyed = rekey(adapted, first, second, offset)
        np.testing.assert_allclose(logits(rekeyed, _encrypted(spec, images, OTHER, 4)), plain, rtol=0, atol=1e-12)


def _convmixer(adaptive_matrix):
    return models.parse_name(
        "ConvMixer-16/2",
        image_size=16,
        num_classes=3,
        dtype="float64",
        options={"patch_size": 4, "kernel_size": 3, "adaptive_matrix": adaptive_matrix},
    )


def _train(config, params, statistics, images, labels, spec, secret):
    settings = default_config()
    settings.dtype = "float64"
    settings.encryption = spec
    settings.optimizer.update({"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.05})
    functions = compile_steps(config, settings, total_steps=len(images))
    state = functions.init_state(*jax.tree.map(jax.numpy.array, (params, statistics)))
    for batch_images, batch_labels in zip(images, labels, strict=True):
        batch = {"image": batch_images, "label": batch_labels}
        state = functions.train_step(state, batch, jax.random.key(1), secret)
    logits = compiled(models.build(config)).apply(
        state["params"],
        normalize_images(_in(spec, secret, images[0]), (0.5,) * 3, (0.5,) * 3, "float64"),
        state["statistics"],
    )
    return jax.device_get(state), np.asarray(logits)


def _in(spec, secret, images):
    return images if secret is None else parse(spec, 4).encrypt(images, secret)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "adaptive_matrix"),
    [("ps", "none"), ("np", "none"), ("bs+ps", "free"), ("bs+ps+np", "softmax"), ("etc:shared=True", "sinkhorn")],
)
def test_a_convmixer_trains_on_encrypted_images_as_on_plain_ones(spec, adaptive_matrix):
    with jax.enable_x64(True):
        config = _convmixer(adaptive_matrix)
        model = compiled(models.build(config))
        statistics = jax.tree.map(np.float64, jax.device_get(model.init_statistics(jax.random.key(0))))
        params = jax.tree.map(np.float64, jax.device_get(model.init(jax.random.key(0))))
        random = np.random.default_rng(0)
        images, labels = random.integers(0, 256, (10, 6, 16, 16, 3), np.uint8), random.integers(0, 3, (10, 6))
        permutations = _permutations(spec, KEY, config)
        secret = parse(spec, 4).derive(KEY, height=16, width=16)
        plain, plain_logits = _train(config, params, statistics, images, labels, spec, None)
        encrypted, logits = _train(config, adapt(params, permutations), statistics, images, labels, spec, secret)
        other, _ = _train(config, params, statistics, images, labels, spec, secret)
    assert_close_tree(restore(encrypted["params"], permutations), plain["params"], 1e-9)
    assert_close_tree(encrypted["statistics"], plain["statistics"], 1e-9)
    np.testing.assert_allclose(logits, plain_logits, rtol=0, atol=1e-8)
    name = "block_0/pointwise/kernel"
    assert abs(flatten(other["params"])[name] - flatten(plain["params"])[name]).max() > 1e-4


@pytest.mark.slow
def test_scrambled_blocks_need_something_that_follows_them():
    config = dataclasses.replace(_convmixer("none"), dtype="float32")
    params = compiled(models.build(config)).init(jax.random.key(0))
    for spec in ("bs", "bs+ps", "etc:shared=True"):
        with pytest.raises(UserError, match="no position embedding"):
            adapt(params, _permutations(spec, KEY, config))


def test_a_model_without_patches_absorbs_nothing():
    config = tiny_model()
    with pytest.raises(UserError, match="no patch embedding"):
        adapt({"stem": {}}, _permutations("np", KEY, config))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("etc", "from block to block"),
        ("etc:channels=legacy,shared=True", "destroy information"),
        ("bs+ps+np:shared=False", "from block to block"),
        ("bs+pps:shared=none", "from block to block"),
        ("pe", "every pixel"),
        ("pe:keys=per_image", "every pixel"),
        ("le", "four bits"),
        ("ele", "four bits"),
        ("neuracrypt", "not linear"),
        ("color-neuracrypt", "not linear"),
    ],
)
def test_what_cannot_be_absorbed_is_refused_with_the_reason(spec, reason):
    with pytest.raises(UserError, match=reason):
        KEY.permutations(spec, image_size=16, patch_size=4)


def test_per_block_permutations_are_refused_by_the_model():
    permutations = EncryptionThenCompression(block_size=4).permutations(KEY, height=16, width=16)
    with pytest.raises(UserError, match="differ from block to block"):
        adapt(random_params(tiny_model()), permutations)
