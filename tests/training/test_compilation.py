"""Number of compilations, and the shapes that a step accepts."""

import dataclasses

import chex
import jax
import numpy as np
import pytest
from helpers.tiny import random_dataset, random_images, random_params, tiny_model

from ppvit_jax import keys, models
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.config import default_config, make_encryption
from ppvit_jax.training import step
from ppvit_jax.training.loop import Run, train
from ppvit_jax.training.matching import PLAIN
from ppvit_jax.training.step import compile_steps

MODEL = tiny_model()


def _config(**fields):
    config = default_config()
    config.batch_size, config.eval_batch_size = 8, 4
    config.log_steps = 1
    config.tensorboard = False
    config.update(fields)
    return config


@pytest.fixture
def traced_once(monkeypatch):
    """Makes it an error to trace a model twice in training, or twice in evaluation."""
    build = models.build

    def build_guarded(model_config):
        model = build(model_config)
        return dataclasses.replace(
            model, train=chex.assert_max_traces(model.train, n=1), apply=chex.assert_max_traces(model.apply, n=1)
        )

    chex.clear_trace_counter()
    step._compiled.cache_clear()
    monkeypatch.setattr(models, "build", build_guarded)
    yield
    step._compiled.cache_clear()


def _run(workdir, config, number, train_examples=24):
    """Trains with key number `number`; there are three test batches, and the last one is padded."""
    method = make_encryption(config, MODEL)
    assert method is not None
    secret = method.derive(keys.SecretKey(bytes([number] * 32)), height=16, width=16)
    dataset = random_dataset(train=train_examples)
    run = Run(config, dataset, MODEL, random_params(MODEL, number), {}, secret, Metadata(config.model, 16), PLAIN)
    return train(run, workdir)


@pytest.mark.slow
@pytest.mark.parametrize("on_device", ["False", "True"])
def test_steps_epochs_keys_and_lengths_share_one_compilation(tmp_path, traced_once, on_device):
    config = _config(epochs=2)
    config.data.on_device = on_device
    first = _run(tmp_path / "first", config, 1)
    config.epochs = 3
    second = _run(tmp_path / "second", config, 2, train_examples=16)
    assert (first["steps"], second["steps"]) == (6, 6)
    assert (first["epochs"], second["epochs"]) == (2, 3)
    assert first["test_loss"] != second["test_loss"]


@pytest.mark.slow
def test_another_batch_size_is_another_compilation(tmp_path, traced_once):
    """Shows that the guard in the test above can fail."""
    _run(tmp_path / "first", _config(epochs=1), 1)
    with pytest.raises(AssertionError, match="is traced > 1 times"):
        _run(tmp_path / "second", _config(epochs=1, batch_size=4), 1)


@pytest.mark.parametrize(
    "change",
    [
        {"image": np.zeros((4, 16, 16, 3), np.float32)},
        {"image": np.zeros((16, 16, 3), np.uint8)},
        {"label": np.zeros(4, np.float32)},
        {"label": np.zeros((4, 1), np.int32)},
        {"label": np.zeros(3, np.int32)},
        {"mask": np.ones(4, bool)},
        {"mask": np.ones((4, 1), np.float32)},
    ],
)
def test_shapes_and_dtypes_are_checked_when_a_step_is_traced(change):
    steps = compile_steps(MODEL, _config(encryption="none"), 1)
    params = random_params(MODEL)
    batch = {"image": random_images(4, 16), "label": np.zeros(4, np.int32), "mask": np.ones(4, np.float32)}
    with pytest.raises(AssertionError):
        jax.eval_shape(steps.eval_step, params, {}, batch | change, None)
    if "mask" not in change:
        with pytest.raises(AssertionError):
            jax.eval_shape(steps.train_step, steps.init_state(params, {}), batch | change, jax.random.key(0), None)
