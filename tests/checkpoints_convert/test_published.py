"""Models as they are published: read into our arrays, adapted without a conversion, restored and written back."""

import dataclasses

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.published import NAMES, has_head, normalization, outputs, publish
from helpers.tiny import random_images

from checkpoints_convert import published
from ppvit_jax import models
from ppvit_jax.data.preprocess import normalize_images

IMAGES = random_images(2, 32)


def compute(arrays, metadata, images=IMAGES):
    """Returns our logits, or the pooled features of a model without a head, of images."""
    config = models.infer_config(arrays, where="it", image_size=metadata.image_size, options=metadata.model_options)
    if not config.num_classes:
        width = config.hidden_size
        arrays = {**arrays, "head/kernel": np.eye(width, dtype=np.float32), "head/bias": np.zeros(width, np.float32)}
        config = dataclasses.replace(config, num_classes=width)
    params = unflatten_dict({name: arrays[name] for name in models.parameter_shapes(config)}, sep="/")
    pixels = normalize_images(images, *metadata.normalization, "float32")
    return np.asarray(jax.jit(models.build(config).apply)(params, pixels))


@pytest.mark.parametrize("name", NAMES)
def test_every_family_is_read_and_computes_what_its_program_computes(tmp_path, name):
    model = publish(tmp_path / "folder", name)
    arrays, metadata = published.read(tmp_path / "folder")
    assert dict(mean=metadata.mean, std=metadata.std) == normalization(name)
    expected = outputs(model, name, IMAGES)
    assert ("head/kernel" in arrays) == has_head(name) and expected.std() > 0.1
    np.testing.assert_allclose(compute(arrays, metadata), expected, rtol=0, atol=1e-4)
