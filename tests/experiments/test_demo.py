"""The demo's message: an encrypted and adapted model is as accurate as the plain one, and one not adapted is not."""

import pytest
from helpers.command import ROOT, make_key

from ppvit_jax import config as configuration
from ppvit_jax import data
from ppvit_jax.experiments.table1 import DEFAULT_ARMS, train_arm


@pytest.mark.slow
def test_the_message_does_not_depend_on_the_key(tmp_path):
    """One of the demo's three epochs shows it; docs/demo/keys.md has ten keys and all epochs."""
    overrides = ["--config.epochs=1", "--config.tensorboard=False", "--config.data.test_examples=400"]
    config = configuration.load(str(ROOT / "configs" / "demo.py"), overrides)
    dataset = data.load(config.data, config.image_size, config.seed)
    plain, adapted, not_adapted = DEFAULT_ARMS
    baseline = train_arm(config, plain, tmp_path, dataset)["test_accuracy"]
    assert baseline > 0.7
    for number in (1, 2):
        config.key_file = str(make_key(tmp_path, number))
        output = tmp_path / str(number)
        assert train_arm(config, not_adapted, output, dataset)["test_accuracy"] < baseline - 0.05
        if number == 1:
            assert abs(train_arm(config, adapted, output, dataset)["test_accuracy"] - baseline) <= 0.005
