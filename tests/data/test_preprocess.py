import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ppvit_jax.data.preprocess import AUGMENTATIONS, normalize_images, preprocess
from ppvit_jax.data.rand_augment import apply_operation, rand_augment
from ppvit_jax.encryption import encrypt
from ppvit_jax.keys import SecretKey

_compute: Any = jax.jit(preprocess, static_argnums=(1, 2))


def _images(count, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def test_images_of_the_right_size_come_back_unchanged():
    images = _images(3, 24, 24)
    result = _compute(jnp.asarray(images), 24)
    assert result.dtype == jnp.uint8
    np.testing.assert_array_equal(result, images)


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(height=st.integers(4, 40), width=st.integers(4, 40), size=st.sampled_from([8, 24, 48]))
def test_resizing_agrees_with_pillow(height, width, size):
    images = _images(2, height, width)
    expected = [np.asarray(Image.fromarray(i).resize((size, size), Image.Resampling.BILINEAR)) for i in images]
    # Pillow rounds its coefficients to fixed point, and rounds between the horizontal and the vertical pass.
    difference = np.asarray(_compute(jnp.asarray(images), size), np.int32) - np.asarray(expected, np.int32)
    assert abs(difference).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", [name for name in AUGMENTATIONS if name != "none"])
def test_augmentation_is_a_function_of_its_random_key(augmentation):
    images = jnp.asarray(_images(16, 32, 32))
    one, same, other = (_compute(images, 32, augmentation, jax.random.key(seed)) for seed in (1, 1, 2))
    assert one.dtype == jnp.uint8 and one.shape == images.shape
    np.testing.assert_array_equal(one, same)
    assert (np.asarray(one) != np.asarray(other)).any()


def test_flip_mirrors_about_half_of_the_images_and_changes_nothing_else():
    images = _images(200, 8, 8)
    flipped = np.asarray(_compute(jnp.asarray(images), 8, "flip", jax.random.key(0)))
    mirrored = sum(np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, images, strict=True))
    kept = sum(np.array_equal(a, b) for a, b in zip(flipped, images, strict=True))
    assert mirrored + kept == 200 and 70 < mirrored < 130


def test_crop_is_a_window_of_the_zero_padded_image_and_every_window_occurs():
    images = _images(300, 16, 16)
    cropped = np.asarray(_compute(jnp.asarray(images), 16, "crop", jax.random.key(0)))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    seen = set()
    for image, whole in zip(cropped, padded, strict=True):
        windows = [(y, x) for y in range(5) for x in range(5) if (whole[y : y + 16, x : x + 16] == image).all()]
        assert len(windows) == 1
        seen.update(windows)
    assert len(seen) == 25


@pytest.mark.slow
def test_random_resized_crop_takes_windows_of_the_stated_area():
    # On a ramp, the slope of the result shows the window's width.
    ramp = np.broadcast_to((np.arange(64) * 4)[None, None, :, None], (200, 64, 64, 3)).astype(np.uint8)
    for images, axis in ((ramp, 2), (ramp.swapaxes(1, 2), 1)):
        result = np.asarray(
            _compute(jnp.asarray(images), 64, "random_resized_crop", jax.random.key(0)), np.float64
        ).mean(axis=(3 - axis, 3))
        sides = abs(result[:, 48] - result[:, 16]) / 32 / 4
        assert sides.min() > np.sqrt(0.35 * 3 / 4) - 0.03
        assert sides.max() < 1.03
        assert sides.max() - sides.min() > 0.3


@pytest.mark.slow
def test_a_flat_image_stays_flat_under_random_resized_crop():
    images = jnp.full((32, 20, 20, 3), 77, jnp.uint8)
    result = _compute(images, 16, "random_resized_crop", jax.random.key(0))
    assert (np.asarray(result) == 77).all()


def test_normalization_is_the_formula_in_every_dtype():
    images = _images(2, 4, 4)
    np.testing.assert_allclose(
        normalize_images(images, [0.5] * 3, [0.5] * 3, jnp.float32), images / 127.5 - 1, atol=1e-6
    )
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    np.testing.assert_allclose(
        normalize_images(images, mean, std, jnp.float32), (images / 255 - np.array(mean)) / np.array(std), atol=1e-5
    )
    assert normalize_images(images, mean, std, jnp.bfloat16).dtype == jnp.bfloat16


@pytest.mark.parametrize(("mean", "commutes"), [((0.5, 0.5, 0.5), True), ((0.485, 0.456, 0.406), False)])
def test_normalization_commutes_with_encryption_only_if_channels_are_alike(mean, commutes):
    images = _images(2, 16, 16)
    permutations = SecretKey(bytes(32)).permutations("bs+ps", image_size=16, patch_size=4)
    first = normalize_images(encrypt(images, permutations, 4), mean, (0.5, 0.5, 0.5), jnp.float32)
    last = encrypt(np.asarray(normalize_images(images, mean, (0.5, 0.5, 0.5), jnp.float32)), permutations, 4)
    assert np.array_equal(first, last) == commutes


@pytest.mark.parametrize(("height", "width"), [(8, 9), (100, 100), (32, 32)])
def test_pixels_do_not_depend_on_the_precision_of_training(height, width):
    """An owner encrypts in float32, and the cloud may train in any dtype."""
    images = np.random.default_rng(0).integers(0, 256, (16, height, width, 3), np.uint8)
    results = []
    for wide in (False, True):
        with jax.enable_x64(wide):
            results.append(np.asarray(_compute(jnp.asarray(images), 64)))
    np.testing.assert_array_equal(*results)


WRONG_IMAGES = {
    "one image": (32, 32, 3),
    "four channels": (2, 32, 32, 4),
    "gray": (2, 32, 32, 1),
    "channels first": (2, 3, 32, 32),
}


@pytest.mark.parametrize("compute", [lambda x: preprocess(x, 16), lambda x: rand_augment(x, jax.random.key(0))])
def test_images_of_another_shape_or_type_are_an_error_when_the_program_is_traced(compute):
    jax.eval_shape(compute, jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.uint8))
    for shape in WRONG_IMAGES.values():
        with pytest.raises(AssertionError):
            jax.eval_shape(compute, jax.ShapeDtypeStruct(shape, jnp.uint8))
    for dtype in (jnp.float32, jnp.int32, jnp.int8):
        with pytest.raises(AssertionError):
            jax.eval_shape(compute, jax.ShapeDtypeStruct((2, 32, 32, 3), dtype))


def test_one_operation_takes_one_image():
    with pytest.raises(AssertionError):
        apply_operation(jnp.zeros((1, 8, 8, 3), jnp.uint8), 0, 0.0)
    with pytest.raises(AssertionError):
        apply_operation(jnp.zeros((8, 8, 3)), 0, 0.0)


def test_normalization_needs_three_channels():
    with pytest.raises(AssertionError):
        normalize_images(jnp.zeros((2, 8, 8, 4), jnp.uint8), (0.5,) * 3, (0.5,) * 3, jnp.float32)


def test_an_unknown_augmentation_is_an_error():
    with pytest.raises(ValueError, match="augmentation is 'blur'"):
        preprocess(jnp.zeros((1, 8, 8, 3), jnp.uint8), 8, "blur", jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_batches_of_one_size_are_traced_once(augmentation):
    chex.clear_trace_counter()
    compute = jax.jit(chex.assert_max_traces(preprocess, n=1), static_argnums=(1, 2))
    for seed in range(3):
        compute(_images(4, 20, 20, seed), 16, augmentation, jax.random.key(seed))
    with pytest.raises(AssertionError, match="traced > 1 times"):
        compute(_images(5, 20, 20), 16, augmentation, jax.random.key(0))


@functools.cache
def _compiled(augmentation, size):
    return np.asarray(_compute(_images(8, 16, 16), size, augmentation, jax.random.key(1)))


# The declared type is too general for a type checker.
variants: Any = chex.variants


@pytest.mark.slow
class Variants(chex.TestCase):
    @variants(with_jit=True, without_jit=True)
    def test_compiled_or_not_the_pixels_are_the_same_bit_for_bit(self):
        compute = self.variant(preprocess, static_argnums=(1, 2))
        for augmentation, size in (("none", 16), ("none", 24), ("none", 10), ("flip+crop", 16), ("flip+crop+rand", 16)):
            result = compute(_images(8, 16, 16), size, augmentation, jax.random.key(1))
            chex.assert_shape(result, (8, size, size, 3))
            chex.assert_type(result, jnp.uint8)
            np.testing.assert_array_equal(result, _compiled(augmentation, size), err_msg=f"{augmentation} to {size}")

    @variants(with_jit=True, without_jit=True)
    def test_compiled_or_not_random_resized_crops_differ_by_rounding_alone(self):
        """The windows are float32 numbers, and their last bit depends on XLA's fusion of the arithmetic."""
        compute = self.variant(preprocess, static_argnums=(1, 2))
        result = compute(_images(8, 16, 16), 16, "random_resized_crop", jax.random.key(1))
        difference = np.abs(np.asarray(result, np.int32) - _compiled("random_resized_crop", 16))
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01
