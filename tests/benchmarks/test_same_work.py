"""Training steps and encryptions that are compared do the same work."""

import jax
import numpy as np
import pytest
from helpers.tiny import flatten, random_images, random_params

from benchmarks import pytorch, straightforward
from benchmarks.jax_step import TrainingStep, random_batch
from checkpoints_convert.names import from_google
from checkpoints_convert.tables.vit import TIMM
from ppvit_jax.config import default_config
from ppvit_jax.encryption import Permutations, encrypt
from ppvit_jax.models import vit


@pytest.mark.slow
def test_steps_of_jax_and_pytorch_train_alike():
    config = vit.parse_name("ViT-Micro/8", image_size=16, num_classes=10)
    training = default_config()
    training.optimizer.learning_rate = 0.02
    # The means and deviations differ, so that the test notices channels in other places.
    training.mean, training.std = (0.4, 0.5, 0.6), (0.3, 0.5, 0.7)
    batch = random_batch(4, 16)
    params = random_params(config)

    def state_dict(tree):
        return from_google(flatten(jax.device_get(tree)), TIMM, layers=config.layers)

    in_jax = TrainingStep(config, training, batch, params=params)
    in_pytorch = pytorch.TrainingStep(config, training, batch, "cpu")
    begin = state_dict(params)
    in_pytorch.load(begin)
    in_jax.run(3)
    in_pytorch.run(3)
    expected, weights = state_dict(in_jax.state["params"]), in_pytorch.weights()
    assert weights.keys() == expected.keys() == begin.keys()
    moved = {name: np.abs(weights[name] - begin[name]).max() for name in weights}
    assert np.median(list(moved.values())) > 1e-3
    for name in weights:
        np.testing.assert_allclose(weights[name], expected[name], rtol=0, atol=1e-4, err_msg=name)
    metrics = in_jax.state["metrics"]
    assert float(in_pytorch.loss) == pytest.approx(float(metrics["loss"]) / 4, abs=1e-4)
    assert int(in_pytorch.correct) == int(metrics["correct"])


def test_straightforward_encryptions_give_the_same_bytes():
    random = np.random.default_rng(0)
    images = random_images(3, 16)[:, :, :8]
    block, pixel = random.permutation(8), random.permutation(4 * 4 * 3)
    expected = encrypt(images, Permutations(block, pixel), 4)
    assert not np.array_equal(expected, images)
    np.testing.assert_array_equal(straightforward.encrypt(images, block, pixel, 4), expected)
    images, block, pixel = (pytorch.to_device(array, "cpu") for array in (images, block, pixel))
    np.testing.assert_array_equal(pytorch.encrypt(images, block, pixel, 4).numpy(), expected)
