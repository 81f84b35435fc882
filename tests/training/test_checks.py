import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny import random_dataset, tiny_model

from ppvit_jax.config import default_config
from ppvit_jax.data.source import ArraySource
from ppvit_jax.errors import UserError
from ppvit_jax.training.checks import check_finite, check_state, find_doubts

MODEL = tiny_model()


def _state(**branches):
    count = jnp.array(3)
    return {"params": {"a": jnp.ones(3), "b": jnp.ones((2, 2))}, "statistics": {}, "opt_state": (count,)} | branches


def test_a_finite_state_and_loss_pass():
    check_state(_state(), 3)
    check_state(_state(statistics={"mean": jnp.zeros(2)}, params={}), 3)
    check_finite("test loss", 1e38, 3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("branch", ["params", "statistics", "opt_state"])
def test_a_single_value_that_is_not_finite_ends_the_run(branch, value):
    with pytest.raises(UserError, match=r"are NaN or infinite at step 7, .* lower config\.optimizer\.learning_rate"):
        check_state(_state(**{branch: {"a": jnp.ones(3), "b": jnp.ones((2, 2)).at[1, 1].set(value)}}), 7)
    with pytest.raises(UserError, match=rf"the test loss is {value} at step 7, .* in a new workdir"):
        check_finite("test loss", value, 7)


def _doubts(*losses, predicted_classes: int | None = 3, dataset=None, test_accuracy=0.5, **fields):
    config = default_config()
    config.update(fields)
    epochs = [
        {
            "train_loss": loss,
            "test_accuracy": test_accuracy,
            "test_examples": 10,
            "predicted_classes": predicted_classes,
        }
        for loss in losses
    ]
    return find_doubts(config, dataset or random_dataset(), MODEL, epochs)  # pyright: ignore[reportArgumentType]


def test_ordinary_runs_get_no_warning():
    assert _doubts(0.9) == _doubts(0.9, 0.7) == _doubts(1.2, 1.1, 1.05) == []
    # A perfect model's loss, and a loss that falls slowly.
    assert _doubts(0.0, 0.0) == _doubts(0.5, 0.4995) == []
    # A line of an earlier version does not count the predicted classes.
    assert _doubts(0.9, predicted_classes=None) == []


def test_a_test_set_of_one_class_gets_a_warning():
    dataset = random_dataset()
    source = ArraySource(np.zeros((10, 16, 16, 3), np.uint8), np.full(10, 2, np.int32))
    (doubt,) = _doubts(0.9, dataset=dataclasses.replace(dataset, test=source), test_accuracy=1.0, predicted_classes=1)
    assert doubt.startswith("all 10 test images are of the class 'class 2', so a test accuracy of 100.00% tells")


def test_constant_predictions_get_a_warning():
    (doubt,) = _doubts(0.9, predicted_classes=1)
    assert doubt.startswith("the model predicts the same class for all 10 test images")


def test_a_loss_that_does_not_move_gets_a_warning():
    (doubt,) = _doubts(math.log(3) * (1 + 1e-6))
    assert doubt.startswith("the training loss did not move: in the last epoch it is 1.0986, as for a model that guess")
    (doubt,) = _doubts(0.73, 0.6, 0.73)
    assert "0.7300, as in the first epoch" in doubt
    # Somebody who freezes every parameter only wants to evaluate.
    assert _doubts(0.73, 0.73, freeze=(".*",)) == []
    assert len(_doubts(0.73, 0.73, freeze=("embedding/.*",))) == 1
