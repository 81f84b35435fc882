import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.pytorch import torch
from sklearn import datasets
from torchvision import transforms

from ppvit_jax.data.rand_augment import BINS, OPERATIONS, apply_operation, magnitudes, rand_augment

SIZES = [(32, 32), (20, 28)]
GEOMETRY, BLENDS = OPERATIONS[:6], OPERATIONS[6:10]
WITHOUT_MAGNITUDE = ("Identity", "AutoContrast", "Equalize")
_apply: Any = jax.jit(jax.vmap(apply_operation, (0, None, None)))


class _OneOperation(transforms.RandAugment):
    """torchvision's RandAugment, restricted to one operation at one magnitude."""

    def __init__(self, name: str, value: float):
        super().__init__(num_ops=1, magnitude=0)
        self.space = {name: (torch.tensor([value]), False)}

    def _augmentation_space(self, num_bins: int, image_size: tuple[int, int]) -> dict[str, tuple[torch.Tensor, bool]]:
        return self.space


def _torchvision(images, name, value):
    transform = _OneOperation(name, value)
    outputs = [transform(torch.from_numpy(image).permute(2, 0, 1)) for image in images.copy()]
    return np.stack([output.permute(1, 2, 0).numpy() for output in outputs])


@functools.cache
def _images(height, width):
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    noise = random.integers(0, 256, (3, height, width, 3))
    gradient = np.stack([rows * 255 / (height - 1), columns * 255 / (width - 1), 4 * (rows + columns)], -1)
    narrow = random.integers(90, 131, (height, width, 3))
    flats = [np.full((height, width, 3), value) for value in (0, 77, 255)]
    two_levels = np.where(columns < 5, 3, 200)[:, :, None] * np.ones(3)
    photograph = datasets.load_sample_image("flower.jpg")[100 : 100 + 8 * height : 8, 200 : 200 + 8 * width : 8]
    return np.stack([*noise, gradient, narrow, *flats, two_levels, photograph]).astype(np.uint8)


def _values(name, height, width):
    """Returns the signed values of several bins."""
    bins = [0] if name in WITHOUT_MAGNITUDE else [0, 1, 5, 9, 12, 17, 23, 30]
    values = [float(magnitudes(height, width, bin_)[OPERATIONS.index(name)]) for bin_ in bins]
    return values + ([-value for value in values[1:]] if name in OPERATIONS[1:10] else [])


def _pairs(name, size):
    images = _images(*size)
    for value in _values(name, *size):
        ours = np.asarray(_apply(images, OPERATIONS.index(name), value))
        assert ours.dtype == np.uint8 and ours.shape == images.shape
        yield value, ours, _torchvision(images, name, value)


def _between_two_pixels(name, value, height, width):
    """Marks pixels whose source lies so close to the middle between two pixels that rounding errors decide."""
    y, x = np.mgrid[:height, :width] + 0.5
    if name == "ShearX":
        x = x + value * y
    elif name == "ShearY":
        y = y + value * x
    elif name == "Rotate":
        turned = (x - width / 2 + 1j * (y - height / 2)) * np.exp(1j * np.radians(value))
        x, y = turned.real + width / 2, turned.imag + height / 2
    # The half added above turns these middles into whole numbers.
    return (abs(x - np.round(x)) < 1e-3) | (abs(y - np.round(y)) < 1e-3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bin_", range(BINS))
def test_magnitudes_and_signs_are_torchvisions(size, bin_):
    space = transforms.RandAugment()._augmentation_space(BINS, size)
    assert tuple(space) == OPERATIONS
    assert tuple(name for name, (_, signed) in space.items() if signed) == OPERATIONS[1:10]
    expected = [values[bin_].item() if values.ndim else 0 for values, _ in space.values()]
    np.testing.assert_allclose(magnitudes(size[0], size[1], bin_), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_is_torchvisions(name, size):
    for value, ours, expected in _pairs(name, size):
        differ = (ours != expected).any((0, 3))
        ties = _between_two_pixels(name, value, *size)
        assert not (differ & ~ties).any(), value
        assert ties.mean() < 0.06, value  # at most one row


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", BLENDS)
def test_blends_are_torchvisions_within_a_gray_level(name, size):
    # torchvision's rounding errors may reduce an exact integer result, or its truncated luminance, by one: often only
    # where the two blended values are equal.
    for value, ours, expected in _pairs(name, size):
        difference = ours.astype(np.int32) - expected
        assert abs(difference).max() <= 1, value
        assert ((difference != 0) & (ours != _images(*size))).mean() < 0.02, value


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["Posterize", "Solarize", "Equalize"])
def test_tone_curves_are_torchvisions_exactly(name, size):
    for _, ours, expected in _pairs(name, size):
        np.testing.assert_array_equal(ours, expected)


def _ramps():
    """Returns images with many lowest and many highest values."""
    lowest, highest = np.mgrid[:256, :256].reshape(2, -1)[:, ::7]
    ramps = lowest[:, None] + (highest - lowest)[:, None] * np.arange(256) // 255
    return np.repeat(ramps.astype(np.uint8).reshape(-1, 16, 16, 1), 3, 3)[lowest <= highest]


@pytest.mark.slow
@pytest.mark.parametrize("images", [_images(*SIZES[0]), _images(*SIZES[1]), _ramps()], ids=[*map(str, SIZES), "ramps"])
def test_autocontrast_is_torchvisions_but_for_its_rounding_of_whole_results(images):
    low, high = (extreme(images, (1, 2), keepdims=True).astype(np.int32) for extreme in (np.min, np.max))
    whole = (images - low) * 255 % np.maximum(high - low, 1) == 0
    ours = np.asarray(_apply(images, OPERATIONS.index("AutoContrast"), 0))
    difference = ours.astype(np.int32) - _torchvision(images, "AutoContrast", 0.0)
    assert np.isin(difference, [0, 1]).all()
    assert (difference[~whole] == 0).all()
    assert (ours.max((1, 2)) == np.where(high > low, 255, high)[:, 0, 0]).all()


@pytest.mark.slow
def test_every_operation_does_something():
    photograph = _images(32, 32)[-1:]
    for index, name in enumerate(OPERATIONS):
        changed = np.asarray(_apply(photograph, index, float(magnitudes(32, 32, 12)[index]))) != photograph
        assert (changed.mean() > 0.1) == (name != "Identity"), name


@pytest.mark.slow
def test_augmentation_is_a_function_of_its_random_key_under_jit_too():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (32, 20, 28, 3), np.uint8))
    one, same, other = (rand_augment(images, jax.random.key(seed)) for seed in (1, 1, 2))
    assert one.dtype == jnp.uint8 and one.shape == images.shape
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(one, jax.jit(rand_augment)(images, jax.random.key(1)))
    assert (np.asarray(one) != np.asarray(other)).any()


@pytest.mark.slow
def test_pixels_do_not_depend_on_the_precision_of_training():
    images = np.random.default_rng(0).integers(0, 256, (200, 20, 28, 3), np.uint8)
    results = []
    for wide in (False, True):
        with jax.enable_x64(wide):
            results.append(np.asarray(rand_augment(jnp.asarray(images), jax.random.key(0))))
    np.testing.assert_array_equal(*results)


def _outcomes(image, magnitude):
    """Returns the possible results of one operation: the image's bytes -> the (operation, sign) that give them."""
    outcomes = {}
    for index, name in enumerate(OPERATIONS):
        value = float(magnitudes(image.shape[0], image.shape[1], magnitude)[index])
        for sign in (1, -1) if name in OPERATIONS[1:10] else (1,):
            outcomes[np.asarray(_apply(image[None], index, sign * value)).tobytes()] = (name, sign)
    return outcomes


@pytest.mark.slow
def test_images_draw_operations_and_signs_uniformly_and_each_its_own():
    image, batch = _images(20, 28)[-1], 7000
    outcomes = _outcomes(image, 12)
    assert len(outcomes) == 14 + 9
    augment = jax.jit(functools.partial(rand_augment, operations=1))
    results = np.asarray(augment(np.broadcast_to(image, (batch, *image.shape)), jax.random.key(0)))
    drawn = [outcomes[result.tobytes()] for result in results]
    counts = np.array([sum(name == wanted for name, _ in drawn) for wanted in OPERATIONS])
    # Chi-squared with 13 degrees of freedom exceeds 34.5 with probability 0.001.
    assert ((counts - batch / 14) ** 2 / (batch / 14)).sum() < 34.5
    for name, count in zip(OPERATIONS[1:10], counts[1:10], strict=True):
        positive = sum(draw == (name, 1) for draw in drawn)
        assert abs(positive - count / 2) < 4 * np.sqrt(count) / 2, name
    # Neighbors in the batch agree as often as independent draws do: 1 in 14.
    agree = np.mean([one[0] == other[0] for one, other in itertools.pairwise(drawn)])
    assert abs(agree - 1 / 14) < 0.015


@pytest.mark.slow
def test_an_image_is_augmented_independently_of_the_others_pixels():
    images = np.random.default_rng(0).integers(0, 256, (16, 20, 28, 3), np.uint8)
    changed = images.copy()
    changed[5] = 255 - changed[5]
    one, other = (np.asarray(rand_augment(jnp.asarray(x), jax.random.key(3))) for x in (images, changed))
    differ = (one != other).any((1, 2, 3))
    assert differ.tolist() == [index == 5 for index in range(16)]


@pytest.mark.slow
@pytest.mark.parametrize("operations", [0, 1, 3])
def test_operations_follow_one_another(operations):
    # With so many images, every pair of operations, in either order, differs from any single one for some image.
    image = _images(20, 28)[-1]
    images = jnp.asarray(np.broadcast_to(image, (200, *image.shape)))
    results = np.asarray(rand_augment(images, jax.random.key(0), operations=operations))
    outcomes = _outcomes(image, 12)
    share = np.mean([result.tobytes() in outcomes for result in results])
    if operations < 2:
        assert share == 1 and (results == image).all() == (operations == 0)
    else:
        assert share < 0.1


@pytest.mark.slow
def test_at_magnitude_0_only_operations_without_a_magnitude_change_an_image():
    # At its threshold of 255, torchvision's Solarize still inverts the value 255.
    image = np.minimum(_images(32, 32)[-1], 254)
    untouched, stretched, equalized = (
        np.asarray(_apply(image[None], OPERATIONS.index(name), 0))[0] for name in WITHOUT_MAGNITUDE
    )
    np.testing.assert_array_equal(untouched, image)
    results = np.asarray(
        rand_augment(jnp.asarray(np.stack([image] * 300)), jax.random.key(0), operations=1, magnitude=0)
    )
    kinds = [[np.array_equal(r, kind) for kind in (image, stretched, equalized)] for r in results]
    assert all(any(kind) for kind in kinds)
    assert all(np.any(kinds, axis=0)) and np.mean(kinds, axis=0)[0] > 0.7


@pytest.mark.parametrize("magnitude", [-1, BINS])
def test_a_magnitude_out_of_range_is_refused(magnitude):
    with pytest.raises(ValueError, match="magnitude"):
        magnitudes(32, 32, magnitude)
