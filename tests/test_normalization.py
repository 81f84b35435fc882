"""Rewriting of models for images that are normalized by another mean and standard deviation."""

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.tiny import assert_same_tree, compiled, flatten, random_images, random_params, tiny_model

from ppvit_jax import checkpoint, models
from ppvit_jax.adaptation import adapt, fold_normalization, restore
from ppvit_jax.encryption import parse
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)
WIDE = ((0.0, 0.1, 1.5), (1.0, 0.02, 7.0))
KEY = SecretKey(bytes(range(32)))


def _normalized(images, normalization):
    """Returns (p - m) / s in float64, by numpy alone."""
    mean, std = (np.float64(values) for values in normalization)
    return (images.astype(np.float64) / 255 - mean) / std


def _convmixer():
    options = {"patch_size": 4, "kernel_size": 3, "adaptive_matrix": "free"}
    return models.parse_name("ConvMixer-16/1", image_size=16, num_classes=3, dtype="float64", options=options)


@pytest.mark.slow
@pytest.mark.parametrize("config", [tiny_model(dtype="float64"), _convmixer()], ids=["ViT", "ConvMixer"])
def test_the_model_computes_the_same_function_of_the_pixels(config):
    with jax.enable_x64(True):
        model, images = compiled(models.build(config)), random_images(3, 16)
        params = random_params(config, dtype=np.float64)
        statistics = jax.device_get(model.init_statistics(jax.random.key(0)))
        expected = np.asarray(model.apply(params, _normalized(images, IMAGENET), statistics))
        assert np.ptp(expected) > 0.1
        for new in (HALF, WIDE):
            folded = fold_normalization(params, IMAGENET, new)
            logits = np.asarray(model.apply(folded, _normalized(images, new), statistics))
            np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-11)
            # Without the rewriting, the logits differ.
            assert np.abs(np.asarray(model.apply(params, _normalized(images, new), statistics)) - expected).max() > 0.01
            names = {name for name, array in flatten(folded).items() if array is not flatten(params)[name]}
            assert names == {"embedding/kernel", "embedding/bias"}


@pytest.mark.slow
def test_a_model_for_imagenets_constants_is_adapted_exactly_after_it_is_rewritten_for_one_half():
    with jax.enable_x64(True):
        config = tiny_model(dtype="float64")
        model, images = compiled(models.build(config)), random_images(3, 16)
        params = random_params(config, dtype=np.float64)
        expected = np.asarray(model.apply(params, _normalized(images, IMAGENET)))
        for spec in ("bs+ps", "bs+ps+np"):
            permutations = KEY.permutations(spec, image_size=16, patch_size=4)
            adapted = adapt(fold_normalization(params, IMAGENET, HALF), permutations)
            method = parse(spec, 4)
            encrypted = np.asarray(method.encrypt(images, method.derive(KEY, height=16, width=16)))
            logits = np.asarray(model.apply(adapted, _normalized(encrypted, HALF)))
            np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-11)
            back = fold_normalization(restore(adapted, permutations), HALF, IMAGENET)
            logits = np.asarray(model.apply(back, _normalized(images, IMAGENET)))
            np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-11)


@pytest.mark.slow
def test_equal_values_change_nothing_and_dtypes_stay():
    params = random_params(tiny_model())
    assert fold_normalization(params, HALF, ([0.5] * 3, [0.5] * 3)) is params
    halved = jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), params)
    for tree in (params, halved, jax.tree.map(jax.numpy.asarray, params)):
        folded = fold_normalization(tree, IMAGENET, HALF)
        assert jax.tree.map(lambda leaf: leaf.dtype, folded) == jax.tree.map(lambda leaf: leaf.dtype, tree)
    assert_same_tree(params, random_params(tiny_model()))


def test_a_model_without_a_patch_embedding_is_refused_with_both_values():
    config = models.parse_name("ResNet-18", image_size=16, num_classes=3)
    params = unflatten_dict({name: np.zeros(shape) for name, shape in models.parameter_shapes(config).items()}, sep="/")
    with pytest.raises(UserError, match=r"mean \(0.485, 0.456, 0.406\) and std .* for mean 0.5 and std 0.5") as caught:
        fold_normalization(params, IMAGENET, HALF)
    assert "\n" not in str(caught.value)
    assert fold_normalization(params, IMAGENET, IMAGENET) is params


def test_a_normalization_is_described_by_its_values():
    assert checkpoint.describe_normalization(*HALF) == "mean 0.5 and std 0.5"
    assert checkpoint.describe_normalization((0.1, 0.2, 0.3), (1, 1, 1)) == "mean (0.1, 0.2, 0.3) and std 1"
