"""Every family of Vision Transformers on encrypted images, with the normalization of its published models."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import optax
import pytest
from helpers.marks import mark_slow
from helpers.tiny import assert_close_tree, assert_same_tree, random_images, random_params

from ppvit_jax import models
from ppvit_jax.adaptation import adapt, fold_normalization, rekey, restore
from ppvit_jax.encryption import parse
from ppvit_jax.keys import SecretKey

HALF = ((0.5,) * 3, (0.5,) * 3)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
KEY, OTHER = SecretKey(bytes(range(32))), SecretKey(bytes(32))
# Name, options, other fields of the shape, and mean and standard deviation.
CASES = {
    "MAE": ("ViT-B/4", {"activation": "gelu", "pool": "mean"}, {}, _IMAGENET),
    "DeiT": ("DeiT-S/4-distilled", {}, {}, _IMAGENET),
    "DeiT without a second head": ("DeiT-S/4-distilled", {"pool": "token"}, {}, _IMAGENET),
    "DeiT III": ("DeiT-S/4-III", {}, {}, _IMAGENET),
    "DINOv2": ("DINOv2-S/14", {}, {}, _IMAGENET),
    "DINOv2 with the mean": ("DINOv2-S/4", {"pool": "token_mean"}, {}, _IMAGENET),
    "DINOv2 giant with registers": ("DINOv2-g/4-registers", {}, {}, _IMAGENET),
    "DINOv2 with registers of timm": ("DINOv2-S/4-registers", {}, {"prefix_rows": 0}, _IMAGENET),
    "SigLIP": ("SigLIP-B/4", {}, {}, HALF),
    "SigLIP with the mean": ("SigLIP-B/4", {"pool": "norm_mean"}, {}, HALF),
    "CLIP": ("CLIP-B/4", {}, {}, _CLIP),
    "CLIP with the mean": ("CLIP-B/4", {"pool": "raw_mean"}, {}, _CLIP),
}
# The others differ in the pooling alone, or in rows without a token.
PARTS = ("MAE", "DeiT", "DeiT III", "DINOv2", "DINOv2 giant with registers", "SigLIP", "CLIP")


def _config(case, dtype) -> Any:
    name, options, fields, _ = CASES[case]
    patch_size = 14 if "/14" in name else 4
    config = models.parse_name(name, image_size=4 * patch_size, num_classes=5, dtype=dtype, options=options)
    size = {"hidden_size": 16, "layers": 1, "heads": 2, "mlp_size": 24}
    return dataclasses.replace(config, **size, **fields)


def _folded(case, params):
    return fold_normalization(params, CASES[case][3], HALF)


def _normalize(images, normalization, dtype):
    mean, std = normalization
    return ((images / 255 - np.array(mean)) / np.array(std)).astype(dtype)


def _permutations(config, encryption, key=KEY):
    return key.permutations(encryption, image_size=config.image_size, patch_size=config.patch_size)


def _encrypt(config, encryption, images):
    method = parse(encryption, config.patch_size)
    return np.asarray(method.encrypt(images, method.derive(KEY, height=config.image_size, width=config.image_size)))


@pytest.mark.parametrize(
    ("case", "dtype", "tolerance"),
    mark_slow(
        [(case, "float64", 1e-12) for case in CASES] + [(case, "float32", 1e-5) for case in PARTS],
        but=[("MAE", "float64", 1e-12), ("CLIP", "float32", 1e-5)],
    ),
)
def test_the_adapted_model_on_encrypted_images_computes_what_the_plain_one_does(case, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        config = _config(case, dtype)
        params, images = random_params(config, dtype=dtype), random_images(3, config.image_size)
        forward = jax.jit(models.build(config).apply)
        plain = np.asarray(forward(params, _normalize(images, CASES[case][3], dtype)))
        assert plain.std() > 0.1
        folded = _folded(case, params)
        for encryption in ("bs", "ps", "bs+ps"):
            encrypted = _normalize(_encrypt(config, encryption, images), HALF, dtype)
            adapted = adapt(folded, _permutations(config, encryption))
            np.testing.assert_allclose(forward(adapted, encrypted), plain, rtol=0, atol=tolerance)
            assert abs(np.asarray(forward(folded, encrypted)) - plain).max() > 0.01


@pytest.mark.parametrize("case", CASES)
def test_restore_undoes_adapt_and_rekey_changes_the_key(case):
    config = _config(case, "float32")
    params = _folded(case, random_params(config))
    for encryption in ("bs", "ps", "bs+ps"):
        old, new = (_permutations(config, encryption, key) for key in (KEY, OTHER))
        adapted = adapt(params, old)
        assert_same_tree(restore(adapted, old), params)
        assert_same_tree(rekey(adapted, old, new), adapt(params, new))


@functools.cache
def _trainer(config):
    """Returns a compiled function that trains with momentum on [steps, batch, size, size, 3]; also the last loss."""
    model, optimizer = models.build(config), optax.sgd(0.02, momentum=0.9)

    def loss(params, images, labels):
        logits = model.train(params, {}, images, jax.random.key(0)).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(state, batch):
        params, moments = state
        value, gradients = jax.value_and_grad(loss)(params, *batch)
        updates, moments = optimizer.update(gradients, moments)
        return (optax.apply_updates(params, updates), moments), value

    def train(params, images, labels):
        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), (images, labels))
        return params, losses

    return jax.jit(train, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.slow
@pytest.mark.parametrize("case", PARTS)
def test_twenty_steps_of_training_stay_equal(case):
    with jax.enable_x64(True):
        config = _config(case, "float64")
        params = _folded(case, random_params(config, dtype=np.float64))
        images = random_images(20 * 4, config.image_size)
        labels = np.random.default_rng(0).integers(0, 5, (20, 4))

        def train(params, images):
            batches = _normalize(images, HALF, "float64").reshape(20, 4, *images.shape[1:])
            return jax.device_get(_trainer(config)(params, batches, labels))

        plain, losses = train(params, images)
        name = models.family_of(config).patch_kernel.partition("/")[0]
        assert abs(plain[name]["kernel"] - params[name]["kernel"]).max() > 1e-3
        for encryption in ("bs", "ps", "bs+ps"):
            permutations = _permutations(config, encryption)
            trained, theirs = train(adapt(params, permutations), _encrypt(config, encryption, images))
            assert_close_tree(restore(trained, permutations), plain, 1e-9)
            np.testing.assert_allclose(theirs, losses, rtol=1e-9)
