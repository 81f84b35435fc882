"""Models as they are published: read into our arrays, adapted without a conversion, restored and written back."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.command import make_key, run_ppvit
from helpers.published import HALF, NAMES, has_head, load, normalization, outputs, publish, run_encoder
from helpers.tiny import random_images

from checkpoints_convert import published
from ppvit_jax import checkpoint, models
from ppvit_jax.data.preprocess import normalize_images

IMAGES = random_images(2, 32)


def compute(arrays, metadata, images=IMAGES):
    """Returns our logits, or the pooled features of a model without a head, of images."""
    config: Any = models.infer_config(
        arrays, where="it", image_size=metadata.image_size, options=metadata.model_options
    )
    if not config.num_classes:
        width = config.hidden_size
        arrays = {**arrays, "head/kernel": np.eye(width, dtype=np.float32), "head/bias": np.zeros(width, np.float32)}
        config = dataclasses.replace(config, num_classes=width)
    params = unflatten_dict({name: arrays[name] for name in models.parameter_shapes(config)}, sep="/")
    mean, std = metadata.normalization
    pixels = normalize_images(images, mean, std, "float32")
    return np.asarray(jax.jit(models.build(config).apply)(params, pixels))


@pytest.mark.parametrize("name", NAMES)
def test_every_family_is_read_and_computes_what_its_program_computes(tmp_path, name):
    model = publish(tmp_path / "folder", name)
    arrays, metadata = published.read(tmp_path / "folder")
    assert {"mean": metadata.mean, "std": metadata.std} == normalization(name)
    expected = outputs(model, name, IMAGES)
    assert ("head/kernel" in arrays) == has_head(name) and expected.std() > 0.1
    np.testing.assert_allclose(compute(arrays, metadata), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_published_model_is_adapted_restored_and_loaded_by_its_program(tmp_path, capsys, name):
    model, key = publish(tmp_path / "folder", name), make_key(tmp_path)
    adapted, tuned = tmp_path / "adapted.npz", tmp_path / "tuned"
    assert run_ppvit("adapt", "--key", key, "--checkpoint", tmp_path / "folder", "--output", adapted) == 0
    own = normalization(name)
    _, metadata = checkpoint.read(adapted)
    assert metadata.mean == metadata.std == (0.5,) * 3
    assert (metadata.own_mean, metadata.own_std) == (((), ()) if own == HALF else (own["mean"], own["std"]))
    status = run_ppvit("restore", "--key", key, "--checkpoint", adapted, "--output", f"{tuned}/")
    assert status == 0, capsys.readouterr().err
    restored = load(tuned, name)
    if type(model).__name__ == "ViTMAEForPreTraining":
        found = run_encoder(restored, own, IMAGES)
    else:
        found = outputs(restored, name, IMAGES)
    np.testing.assert_allclose(found, outputs(model, name, IMAGES), rtol=0, atol=1e-4)
    arrays, metadata = published.read(tuned)
    assert (metadata.mean, metadata.own_mean) == (own["mean"], ())
    np.testing.assert_allclose(compute(arrays, metadata), outputs(model, name, IMAGES), rtol=0, atol=1e-4)
