"""Training with augmentations of encrypted images is training with augmentations of plain ones, in another order."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from helpers.tiny import assert_close_tree, assert_same_tree, random_params, tiny_model

from ppvit_jax import cloud_augmentation, models
from ppvit_jax.adaptation import adapt, restore
from ppvit_jax.cloud_augmentation import cutmix, token_drop
from ppvit_jax.cloud_augmentation.method import draw_set
from ppvit_jax.config import default_config
from ppvit_jax.encryption import Permutations, parse
from ppvit_jax.encryption.blockwise import make_secret
from ppvit_jax.keys import SecretKey
from ppvit_jax.training import step as training_step
from ppvit_jax.training.step import compile_steps

EXACT = "mixup:alpha=1+contrast:strength=0.5+brightness:strength=0.3"
WITHOUT_BRIGHTNESS = "mixup:alpha=1+cutmix+token_drop:rate=0.3+contrast:strength=0.5"
ALL = f"{WITHOUT_BRIGHTNESS}+brightness:strength=0.3"
SIZE, BATCH = 16, 8


def _train(spec, permutations=None, steps=10, **fields):
    """Returns the state after some batches of the real training step, in float64."""
    model = dataclasses.replace(tiny_model(dtype="float64"), layers=1)
    config = default_config()
    config.update({"dtype": "float64", "encryption": "bs+ps", "cloud_augmentation": spec, "label_smoothing": 0.1})
    config.optimizer.update({"learning_rate": 0.05, "nesterov": True})
    config.update(fields)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (steps, BATCH, 12, 12, 3), np.uint8)
    labels, weights = random.integers(0, 3, (steps, BATCH)), random.random((steps, BATCH)) + 0.5
    params, secret = random_params(model, dtype=np.float64), None
    if permutations is not None:
        params = adapt(params, permutations)
        secret = make_secret(permutations, SIZE, SIZE, 4)
    functions = compile_steps(model, config, steps)
    state = functions.init_state(jax.tree.map(jax.numpy.array, params), {})
    for i in range(steps):
        batch = {"image": images[i], "label": labels[i], "weight": weights[i]}
        state = functions.train_step(state, batch, jax.random.key(1), secret)
    return jax.device_get(state)


@functools.cache
def _train_plain(spec):
    return _train(spec)


def _permutations(encryption) -> Permutations:
    return parse(encryption, 4).absorb(SecretKey(bytes(32)), height=SIZE, width=SIZE)


def _same_run(encrypted, plain, permutations):
    assert_close_tree(restore(encrypted["params"], permutations), plain["params"], 1e-9)
    for name in ("loss", "correct"):
        np.testing.assert_allclose(encrypted["metrics"][name], plain["metrics"][name], rtol=1e-6)


@pytest.mark.slow
def test_with_the_same_draws_mixup_contrast_and_brightness_give_the_same_training():
    with jax.enable_x64(True):
        permutations = _permutations("bs+ps")
        plain = _train_plain(EXACT)
        _same_run(_train(EXACT, permutations), plain, permutations)
        # Another augmentation gives another training.
        other = _train_plain(ALL)
        assert abs(plain["params"]["embedding"]["kernel"] - other["params"]["embedding"]["kernel"]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("encryption", "spec"), [("bs+ps", ALL), ("bs+ps+np", WITHOUT_BRIGHTNESS)])
def test_with_sets_that_follow_the_blocks_all_methods_give_the_same_training(encryption, spec, monkeypatch):
    """The sets of the encrypted run are those of the plain one, permuted: as likely as any others."""
    with jax.enable_x64(True):
        permutations = _permutations(encryption)
        plain = _train_plain(spec)

        def permuted(rng, count, blocks):
            return draw_set(rng, count, blocks)[:, permutations.block]

        for module in (cutmix, token_drop):
            monkeypatch.setattr(module, "draw_set", permuted)
        # Steps are cached by their settings, which are those of the run without permuted sets.
        training_step._compiled.cache_clear()
        try:
            _same_run(_train(spec, permutations), plain, permutations)
        finally:
            training_step._compiled.cache_clear()


@pytest.mark.slow
def test_accumulation_changes_nothing():
    with jax.enable_x64(True):
        parts = _train(ALL, accumulation=4)
        plain = _train_plain(ALL)
    assert_close_tree(parts["params"], plain["params"], 1e-12)
    np.testing.assert_allclose(parts["metrics"]["correct"], plain["metrics"]["correct"])


@pytest.mark.slow
def test_the_loss_of_a_mixture_is_that_of_both_labels():
    """One step of mixup against the model's logits of the same images."""
    model = dataclasses.replace(tiny_model(), layers=1)
    config = default_config()
    config.update({"encryption": "none", "adapt": False, "cloud_augmentation": "mixup:alpha=1"})
    images = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)
    labels = np.arange(BATCH) % 3
    functions = compile_steps(model, config, 1)
    params = random_params(model)
    state = functions.init_state(jax.tree.map(jax.numpy.array, params), {})
    state = functions.train_step(state, {"image": images, "label": labels}, jax.random.key(3), None)

    rng = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 0), 2)
    augmentations = cloud_augmentation.parse("mixup:alpha=1")
    mixed = augmentations.apply(jax.numpy.asarray(images), rng, 4, "float32")
    logits = np.asarray(models.build(model).apply(params, np.asarray(mixed.images) / 127.5 - 1), np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    shares = np.asarray(mixed.shares)
    rows = np.arange(BATCH)
    others = np.roll(labels, -1)
    losses = -shares * log_probabilities[rows, labels] - (1 - shares) * log_probabilities[rows, others]
    np.testing.assert_allclose(float(state["metrics"]["loss"]), losses.sum(), rtol=1e-5)
    assert 0.01 < shares[0] < 0.99
    larger = np.where(shares >= 0.5, labels, others)
    assert float(state["metrics"]["correct"]) == (logits.argmax(1) == larger).sum()


@pytest.mark.slow
def test_evaluation_augments_nothing():
    model = dataclasses.replace(tiny_model(), layers=1)
    results = []
    images = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    for spec in ("none", "mixup+token_drop"):
        config = default_config()
        config.cloud_augmentation = spec
        batch = {"image": images, "label": np.arange(4) % 3, "mask": np.ones(4, np.float32)}
        results.append(compile_steps(model, config, 1).eval_step(random_params(model), {}, batch, None))
    assert_same_tree(*map(jax.device_get, results))
