"""Recipes together: exact under encryption, resumable, and equal to loops that are written out."""

import dataclasses
import json
import os
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from helpers.command import ROOT
from helpers.pytorch import torch
from helpers.tiny import (
    assert_close_tree,
    assert_same_tree,
    compiled,
    flatten,
    random_dataset,
    random_images,
    random_params,
    tiny_model,
)

from ppvit_jax import checkpoint, models
from ppvit_jax.adaptation import adapt, restore
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.config import default_config
from ppvit_jax.data import BatchOptions, train_batches
from ppvit_jax.data.balance import balanced_weights
from ppvit_jax.data.source import ArraySource
from ppvit_jax.encryption import parse
from ppvit_jax.keys import SecretKey
from ppvit_jax.training.loop import Run, train
from ppvit_jax.training.matching import PLAIN
from ppvit_jax.training.results import read_history
from ppvit_jax.training.step import compile_steps
from ppvit_jax.training.workdir import Workdir

STEPS, BATCH = 12, 8
# Rare classes, so that weights and orders matter.
LABELS = np.random.default_rng(0).choice(3, 40, p=[0.7, 0.2, 0.1]).astype(np.int32)


def _config(**fields):
    """Returns a configuration with all recipes."""
    config = default_config()
    config.update(
        {
            "encryption": "none",
            "batch_size": BATCH,
            "eval_batch_size": 4,
            "epochs": 2,
            "tensorboard": False,
            "label_smoothing": 0.1,
            "ema_decay": 0.8,
            "drop_path": 0.4,
            "remat": "blocks",
            "class_weights": "balanced",
            "accumulation": 2,
        }
    )
    config.optimizer.update(
        {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.05, "layer_decay": 0.7, "schedule": "cosine"}
    )
    config.data.sampling = "balanced"
    config.update(fields)
    return config


def _batches(images, config, stop=STEPS):
    options = BatchOptions(BATCH, sampling=config.data.sampling, class_weights=balanced_weights(LABELS))
    return train_batches(ArraySource(images, LABELS), options, seed=3, start_step=0, stop_step=stop)


def _follow(params, images, config, model, stop=STEPS):
    """Returns the states after each step."""
    steps = compile_steps(model, config, STEPS)
    state: Any = steps.init_state(jax.tree.map(np.copy, params), {})
    states = []
    for batch in _batches(images, config, stop):
        state = steps.train_step(state, batch, jax.random.key(1), None)
        states.append(jax.device_get(state))
    return states


@pytest.fixture(scope="module")
def float64():
    with jax.enable_x64(True):
        yield tiny_model(dtype="float64")


@pytest.mark.slow
def test_training_with_all_recipes_is_the_same_on_encrypted_images(float64):
    model, config = float64, _config(dtype="float64")
    params, images = random_params(model, dtype=np.float64), random_images(len(LABELS), 16)
    key, method = SecretKey(bytes(32)), parse("bs+ps", 4)
    encrypted = np.asarray(method.encrypt(images, method.derive(key, height=16, width=16)))
    assert (encrypted != images).mean() > 0.9
    permutations = key.permutations("bs+ps", image_size=16, patch_size=4)
    plain = _follow(params, images, config, model)
    adapted = _follow(adapt(params, permutations), encrypted, config, model)
    for ours, theirs in zip(plain, adapted, strict=True):
        assert_close_tree(restore(theirs["params"], permutations), ours["params"], 1e-9)
        assert_close_tree(restore(theirs["average"]["params"], permutations), ours["average"]["params"], 1e-9)
        np.testing.assert_allclose(theirs["metrics"]["loss"], ours["metrics"]["loss"], rtol=1e-6)
    moved = flatten(jax.tree.map(lambda a, b: abs(a - b).max(), plain[-1]["params"], params))
    # The softmax removes what a bias of the keys adds.
    assert min(value for name, value in moved.items() if not name.endswith("key/bias")) > 1e-4

    # The average is that of a loop.
    average = params
    for state in plain:
        average = jax.tree.map(lambda a, w: 0.8 * a + 0.2 * w, average, state["params"])
        assert_close_tree(state["average"]["params"], average, 1e-12)


@pytest.mark.slow
def test_low_rank_factors_on_mixed_images_follow_the_recipe_too(float64):
    config = _config(dtype="float64", cloud_augmentation="mixup:alpha=0.4")
    config.tuning.method = "lora"
    params, images = random_params(float64, dtype=np.float64), random_images(len(LABELS), 16)
    key, method = SecretKey(bytes(32)), parse("bs+ps", 4)
    encrypted = np.asarray(method.encrypt(images, method.derive(key, height=16, width=16)))
    adapted = adapt(params, key.permutations("bs+ps", image_size=16, patch_size=4))
    plain, other = (_follow(p, i, config, float64, stop=6)[-1] for p, i in ((params, images), (adapted, encrypted)))
    for name in ("params", "average"):
        assert_close_tree(other[name], plain[name], 1e-9)
    factors = [array for name, array in flatten(plain["average"]["params"]).items() if name.endswith("lora_b")]
    assert len(factors) == 4 and min(abs(array).max() for array in factors) > 1e-4


@pytest.mark.slow
def test_dropped_branches_change_the_training(float64):
    params, images = random_params(float64, dtype=np.float64), random_images(len(LABELS), 16)
    ends = [
        _follow(params, images, _config(dtype="float64", drop_path=rate), float64, stop=2)[-1] for rate in (0.4, 0.0)
    ]
    first, second = (state["params"]["embedding"]["kernel"] for state in ends)
    assert abs(first - second).max() > 1e-5


@pytest.mark.slow
def test_the_loss_is_that_of_pytorch_with_smoothed_labels_and_a_weight_for_each_image():
    model = tiny_model()
    config = _config(drop_path=0.0, remat="none", accumulation=1)
    params, images = random_params(model), random_images(len(LABELS), 16)
    steps = compile_steps(model, config, STEPS)
    (batch,) = _batches(images, config, 1)
    counts = np.bincount(LABELS)
    np.testing.assert_allclose(batch["weight"], (len(LABELS) / (3 * counts))[batch["label"]], rtol=1e-6)
    logits = np.asarray(compiled(models.build(model)).apply(params, (batch["image"] / 127.5 - 1).astype(np.float32)))
    losses = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(batch["label"]).long(), label_smoothing=0.1, reduction="none"
    )
    state = steps.train_step(steps.init_state(params, {}), batch, jax.random.key(0), None)
    expected = (losses.numpy() * batch["weight"]).mean()
    np.testing.assert_allclose(float(state["metrics"]["loss"]) / BATCH, expected, rtol=1e-5)
    assert abs(expected - losses.numpy().mean()) > 0.01


def _train(workdir, config, dataset):
    params = random_params(tiny_model())
    run = Run(config, dataset, tiny_model(), params, {}, None, Metadata(config.model, 16), PLAIN)
    return train(run, workdir)


@pytest.mark.slow
def test_a_run_with_all_recipes_resumes_bit_for_bit_and_hands_over_the_average(tmp_path, monkeypatch):
    dataset = random_dataset()
    dataset = dataclasses.replace(dataset, train=ArraySource(dataset.train.images, LABELS[:24]))  # type: ignore[attr-defined]
    config = _config(checkpoint_steps=1)
    whole = _train(tmp_path / "whole", config, dataset)
    real = Workdir.save

    def save_and_stop(self, step, state):
        real(self, step, state)
        if step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Workdir, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            _train(tmp_path / "stopped", config, dataset)
    resumed = _train(tmp_path / "stopped", config, dataset)
    assert resumed["test_loss"] == whole["test_loss"]
    tuned, again = (checkpoint.read(tmp_path / name / "checkpoint.npz")[0] for name in ("whole", "stopped"))
    assert_same_tree(tuned, again)

    # The average of a loop over the same steps, which the evaluation saw, too.
    steps = compile_steps(tiny_model(), config, 6)
    state: Any = steps.init_state(random_params(tiny_model()), {})
    options = BatchOptions(BATCH, sampling="balanced", class_weights=balanced_weights(dataset.train.labels))
    for batch in train_batches(dataset.train, options, seed=0, start_step=0, stop_step=6):
        state = steps.train_step(state, batch, jax.random.key(0), None)
    assert_close_tree(tuned, jax.device_get(state["average"]["params"]), 1e-6)
    assert abs(tuned["head/kernel"] - np.asarray(state["params"]["head"]["kernel"])).max() > 1e-4
    images: Any = dataset.test
    logits = compiled(models.build(tiny_model())).apply(
        state["average"]["params"], (images.images / 127.5 - 1).astype(np.float32)
    )
    losses = -jax.nn.log_softmax(logits)[np.arange(10), images.labels]
    np.testing.assert_allclose(read_history(tmp_path / "whole", "epoch")[-1]["test_loss"], losses.mean(), rtol=1e-4)


@pytest.mark.slow
def test_a_weight_that_does_not_move_is_its_own_average_and_without_a_decay_there_is_none():
    model = tiny_model()
    config = _config(drop_path=0.0, remat="none", accumulation=1, freeze=("embedding/.*",))
    params, images = random_params(model), random_images(len(LABELS), 16)
    state = _follow(params, images, config, model, stop=3)[-1]
    assert_same_tree(state["average"]["params"]["embedding"], params["embedding"])
    off = compile_steps(model, _config(ema_decay=0.0), STEPS).init_state(params, {})
    assert "average" not in off


@pytest.mark.slow
def test_an_average_over_more_steps_than_the_run_has_is_told(tmp_path, capsys):
    config = _config(ema_decay=0.999, epochs=1, drop_path=0.0, remat="none", accumulation=1)
    _train(tmp_path, config, random_dataset())
    assert "config.ema_decay is 0.999, but the run has 3 steps" in capsys.readouterr().err


# Trains three steps on four devices with each sharding; prints the bytes of the average on one device, and differences.
_SCRIPT = """
import dataclasses, json
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from ppvit_jax import models
from ppvit_jax.config import SHARDINGS, default_config
from ppvit_jax.training.devices import gather_to_host, shard_batch, shardings, state_shardings
from ppvit_jax.training.step import compile_steps

model = models.parse_name("ViT-Micro/8", image_size=16, num_classes=10, dtype="float64")
model = dataclasses.replace(model, layers=2)
replicated, batch_sharded = shardings()
random = np.random.default_rng(0)
batch = {"image": random.integers(0, 256, (8, 16, 16, 3), np.uint8), "label": random.integers(0, 10, 8),
         "weight": random.uniform(0.5, 2, 8).astype(np.float32)}
params = jax.device_get(jax.jit(models.build(model).init)(jax.random.key(0)))
results = []
for sharding in SHARDINGS:
    config = default_config()
    config.sharding, config.dtype, config.ema_decay, config.remat = sharding, "float64", 0.5, "blocks"
    config.drop_path, config.optimizer.layer_decay = 0.5, 0.7
    steps = compile_steps(model, config, 3)
    state = steps.init_state(params, {})
    state = jax.device_put(state, state_shardings(state, sharding))
    rng = jax.device_put(jax.random.key(0), replicated)
    for _ in range(3):
        state = steps.train_step(state, shard_batch(batch, batch_sharded), rng, None)
    on_one = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state["average"]))
    results.append((on_one, gather_to_host((state["params"], state["average"]))))
(whole, one), (parts, other) = results
apart = max(jax.tree.leaves(jax.tree.map(lambda a, b: float(abs(a - b).max()), one, other)))
moved = max(jax.tree.leaves(jax.tree.map(lambda a, b: float(abs(a - b).max()), one[0], params)))
print(json.dumps({"whole": whole, "parts": parts, "apart": apart, "moved": moved}))
"""


@pytest.mark.slow
def test_devices_share_the_average_and_drop_the_same_branches_with_every_sharding():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run([sys.executable, "-c", _SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["apart"] < 1e-12 < 1e-4 < found["moved"]
    assert found["parts"] < 0.35 * found["whole"]
