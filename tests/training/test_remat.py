"""Values that the backward pass computes again: the same training, in less memory."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from helpers.tiny import assert_close_tree, random_images, random_params, tiny_model

from ppvit_jax.config import default_config
from ppvit_jax.training.step import compile_steps


def _batch(count, size=16):
    return {"image": random_images(count, size), "label": np.arange(count, dtype=np.int32) % 3}


def _steps(model, remat, **fields):
    config = default_config()
    config.update({"encryption": "none", "remat": remat, **fields})
    return compile_steps(model, config, 10)


@pytest.mark.slow
def test_the_trajectory_is_the_same_with_accumulation_and_dropped_branches():
    with jax.enable_x64(True):
        model: Any = tiny_model(dtype="float64")
        params = random_params(model, dtype=np.float64)

        def train(remat):
            steps = _steps(model, remat, dtype="float64", drop_path=0.4, accumulation=2)
            state = steps.init_state(jax.tree.map(np.copy, params), {})
            for _ in range(5):
                state = steps.train_step(state, _batch(8), jax.random.key(0), None)
            return jax.device_get(state)

        plain, again = train("none"), train("blocks")
        assert_close_tree(again["params"], plain["params"], 1e-12)
        assert abs(plain["params"]["embedding"]["kernel"] - params["embedding"]["kernel"]).max() > 1e-4


@pytest.mark.slow
def test_a_deep_model_takes_a_fraction_of_the_memory():
    model = dataclasses.replace(tiny_model(image_size=32), layers=5, hidden_size=32, mlp_size=128)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), random_params(model))

    def temporary(remat):
        steps = _steps(model, remat)
        state = jax.eval_shape(steps.init_state, shapes, {})
        key = jax.eval_shape(lambda: jax.random.key(0))
        batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), _batch(32, 32))
        lowered: Any = steps.train_step
        return lowered.lower(state, batch, key, None).compile().memory_analysis().temp_size_in_bytes

    assert temporary("blocks") < 0.5 * temporary("none")
