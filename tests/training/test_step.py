"""One training step of models with batch statistics, penalties and randomness, compared with explicit formulas."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from helpers.small_networks import initial, small_config
from helpers.tiny import assert_close_tree, assert_same_tree, random_images, random_params
from scipy.special import erf

from ppvit_jax import models
from ppvit_jax.config import make_model
from ppvit_jax.training.step import compile_steps


def _batch(count, seed=0):
    labels = np.random.default_rng(seed).integers(0, 3, count).astype(np.int32)
    return {"image": random_images(count, 16, seed), "label": labels}


def _step(model_config, config, params, statistics, batch):
    """Returns the state after one step, and the reported loss."""
    steps = compile_steps(model_config, config, 10)
    state = steps.init_state(jax.tree.map(np.copy, params), jax.tree.map(np.copy, statistics))
    state = jax.device_get(steps.train_step(state, batch, jax.random.key(0), None))
    return state, float(state["metrics"]["loss"] / state["metrics"]["count"])


@pytest.mark.slow
def test_accumulation_moves_statistics_once_a_part_and_averages_the_gradients():
    config = small_config("convmixer", accumulation=4)
    config.optimizer.update({"momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.5})
    model_config = make_model(config, 3)
    params, batch = random_params(model_config), _batch(12)
    model, parts = models.build(model_config), [slice(k, None, 4) for k in range(4)]
    _, statistics = initial(model_config)
    state, loss = _step(model_config, config, params, statistics, batch)

    # Statistics of the first layer by explicit formulas; each part has every fourth image.
    patches = (batch["image"] / 127.5 - 1).reshape(12, 4, 4, 4, 4, 3).swapaxes(2, 3).reshape(12, 16, 48)
    x = patches @ params["embedding"]["kernel"].reshape(48, 16) + params["embedding"]["bias"]
    x = x * (1 + erf(x / np.sqrt(2))) / 2
    mean, variance = np.zeros(16), np.ones(16)
    for part in parts:
        mean = 0.9 * mean + 0.1 * x[part].mean((0, 1))
        variance = 0.9 * variance + 0.1 * x[part].reshape(-1, 16).var(0, ddof=1)
    moved = state["statistics"]["embedding_norm"]
    np.testing.assert_allclose(moved["mean"], mean, atol=1e-5)
    np.testing.assert_allclose(moved["variance"], variance, atol=1e-5)

    @jax.jit
    @jax.grad
    def gradient(params, images, labels):
        logits = model.train(params, statistics, images / 127.5 - 1, jax.random.key(0)).logits
        return -jax.nn.log_softmax(logits)[np.arange(3), labels].mean()

    gradients = [gradient(params, batch["image"][part].astype(np.float32), batch["label"][part]) for part in parts]
    expected = jax.tree.map(lambda p, *g: p - 0.5 * sum(g) / 4, params, *gradients)
    assert_close_tree(state["params"], expected, 1e-4)
    assert np.isfinite(loss)


@pytest.mark.slow
def test_penalties_enter_the_gradient_once_and_not_the_reported_loss():
    config = small_config("convmixer", accumulation=2)
    config.model_options.adaptive_matrix = "free"
    config.optimizer.update({"momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.5})
    shape: Any = make_model(config, 3)
    with_penalty = dataclasses.replace(shape, penalty_weight=2.0)
    without = dataclasses.replace(with_penalty, penalty_weight=0.0)
    params = random_params(with_penalty)
    # The initial statistics do not depend on the adaptive matrix.
    _, statistics = initial(make_model(small_config("convmixer"), 3))
    outcomes = [_step(m, config, params, statistics, _batch(8)) for m in (with_penalty, without)]
    np.testing.assert_allclose(outcomes[0][1], outcomes[1][1], rtol=1e-6)
    penalized, plain = (state["params"] for state, _ in outcomes)
    matrix = np.float64(params["adaptive_matrix"])
    norms = [np.linalg.norm(matrix, axis=axis, keepdims=True) for axis in (0, 1)]
    gradient = (2 * np.sign(matrix) - matrix / norms[0] - matrix / norms[1]) / matrix.size
    difference = penalized.pop("adaptive_matrix") - plain.pop("adaptive_matrix")
    np.testing.assert_allclose(difference, -0.5 * 2.0 * gradient, atol=1e-5)
    assert_close_tree(penalized, plain, 1e-5)


@pytest.mark.slow
def test_the_randomness_of_shake_drop_is_the_seeds_and_differs_by_step():
    config = small_config("pyramidnet", network="none", freeze=(".*",))
    model_config = make_model(config, 3)
    params, statistics = initial(model_config)
    steps, batch = compile_steps(model_config, config, 10), _batch(8)

    def losses(seed):
        # Parameters are frozen and the batch is the same, so only ShakeDrop changes from step to step.
        state = steps.init_state(jax.tree.map(np.copy, params), jax.tree.map(np.copy, statistics))
        sums = [0.0]
        for _ in range(8):
            state = steps.train_step(state, batch, jax.random.key(seed), None)
            sums.append(float(state["metrics"]["loss"]))
        assert_same_tree(jax.device_get(state["params"]), params)
        return np.round(np.diff(sums), 3).tolist()

    first = losses(0)
    assert losses(0) == first != losses(1)
    # All three gates are on in 28% of the steps, and those steps have the same loss.
    assert len(set(first)) >= 4
