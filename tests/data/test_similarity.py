import numpy as np
import pytest
from skimage import metrics

from ppvit_jax.data.similarity import peak_signal_noise_ratio, structural_similarity


@pytest.mark.parametrize("shape", [(7, 7, 3), (16, 9, 3), (64, 64, 3)])
@pytest.mark.parametrize("noise", [3, 300])
def test_the_values_are_scikit_images(shape, noise):
    random = np.random.default_rng(noise)
    image = random.integers(0, 256, shape, np.uint8)
    other = np.clip(image + random.normal(0, noise, shape), 0, 255).astype(np.uint8)
    expected = metrics.structural_similarity(image, other, channel_axis=2)
    assert structural_similarity(image, other) == pytest.approx(expected, rel=1e-13)
    expected = metrics.peak_signal_noise_ratio(image, other)
    assert peak_signal_noise_ratio(image, other) == pytest.approx(expected, rel=1e-13)


def test_an_image_is_like_itself():
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    assert structural_similarity(image, image) == 1
    assert peak_signal_noise_ratio(image, image) == np.inf
