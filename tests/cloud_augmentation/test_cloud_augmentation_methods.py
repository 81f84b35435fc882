"""Each augmentation of encrypted images against loops in numpy, and the distributions of its draws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.pytorch import timm, torch
from helpers.tiny import random_images

from ppvit_jax import cloud_augmentation
from ppvit_jax.cloud_augmentation import brightness, contrast, cutmix, mixup, token_drop
from ppvit_jax.cloud_augmentation.method import Examples, draw_set, next_examples

BLOCK = 4


def _examples(count=5, size=12, seed=0, dtype=np.float32):
    targets = np.eye(count, dtype=np.float32)
    return Examples(jnp.asarray(random_images(count, size, seed).astype(dtype)), jnp.asarray(targets))


def test_mixup_is_a_sum_of_each_image_and_the_next():
    examples, weights = _examples(), np.array([0.0, 0.25, 0.5, 0.9, 1.0])
    mixed = mixup.mix(examples, next_examples(examples), jnp.asarray(weights))
    for i, w in enumerate(weights):
        for mine, whole in zip(mixed[:2], examples[:2], strict=True):
            np.testing.assert_allclose(mine[i], w * whole[i] + (1 - w) * whole[(i + 1) % 5], rtol=1e-6)


def test_mixup_agrees_with_timm():
    examples = _examples(count=4)
    theirs = timm.data.Mixup(mixup_alpha=0.4, mode="batch", label_smoothing=0, num_classes=4)
    np.random.seed(3)
    images = torch.tensor(np.asarray(examples.images)).permute(0, 3, 1, 2)
    mixed, targets = theirs(images, torch.arange(4))
    weight = float(targets[0, 0])
    assert 0 < weight < 1
    # timm mixes with the batch in reverse order.
    reverse = Examples(examples.images[::-1], examples.targets[::-1])
    ours = mixup.mix(examples, reverse, jnp.full(4, weight))
    np.testing.assert_allclose(ours.images, mixed.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(ours.targets, targets, atol=1e-6)


def test_the_weights_of_mixup_have_the_beta_distribution():
    examples = Examples(jnp.zeros((4000, 1, 1, 1)).at[::2].set(1), jnp.zeros((4000, 1)))
    weights = np.asarray(mixup.Mixup(alpha=0.4).apply(examples, jax.random.key(0), 1).images).ravel()
    # Black and white images alternate, so a mixture shows its weight, or 1 minus it.
    assert abs(weights.mean() - 0.5) < 0.02
    assert abs(weights.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.005


def test_cutmix_takes_whole_blocks_and_labels_by_area():
    examples = _examples()
    taken = np.random.default_rng(1).random((5, 9)) < 0.4
    mixed = cutmix.exchange(examples, next_examples(examples), jnp.asarray(taken), BLOCK)
    for i in range(5):
        expected = np.array(examples.images[i])
        for block in np.flatnonzero(taken[i]):
            rows = slice(block // 3 * BLOCK, block // 3 * BLOCK + BLOCK)
            columns = slice(block % 3 * BLOCK, block % 3 * BLOCK + BLOCK)
            expected[rows, columns] = examples.images[(i + 1) % 5][rows, columns]
        np.testing.assert_array_equal(mixed.images[i], expected)
        share = taken[i].sum() / 9
        target = np.zeros(5)
        target[i], target[(i + 1) % 5] = 1 - share, share
        np.testing.assert_allclose(mixed.targets[i], target, atol=1e-6)


def test_cutmix_leaves_bytes_bytes_and_draws_every_share():
    examples = _examples(count=64, dtype=np.uint8)
    mixed = cutmix.CutMix().apply(examples, jax.random.key(0), BLOCK)
    assert mixed.images.dtype == jnp.uint8
    shares = np.asarray(mixed.targets)[np.arange(64), (np.arange(64) + 1) % 64]
    np.testing.assert_allclose(shares * 9, np.round(shares * 9), atol=1e-5)
    assert set(np.round(shares * 9).astype(int)) >= set(range(1, 9))


def test_every_set_of_blocks_of_one_size_is_equally_likely():
    sets = np.asarray(draw_set(jax.random.key(0), jnp.full(20_000, 2), 5))
    assert (sets.sum(1) == 2).all()
    counts = [(sets[:, i] & sets[:, j]).sum() for i, j in itertools.combinations(range(5), 2)]
    # Uniform over the ten pairs: each has 2,000 of 20,000, with a standard deviation of 42.
    assert max(abs(count - 2000) for count in counts) < 5 * 42


def test_sets_have_the_sizes_that_are_asked_for():
    sizes = np.arange(7)
    np.testing.assert_array_equal(draw_set(jax.random.key(1), jnp.asarray(sizes), 6).sum(1), sizes)


@pytest.mark.parametrize(("rate", "kept"), [(0.1, 8), (0.5, 4), (0.99, 1)])
def test_token_drop_keeps_as_many_patches_as_timm(rate, kept):
    theirs = timm.layers.PatchDropout(rate, num_prefix_tokens=1)
    theirs.train()
    assert theirs(torch.zeros(2, 1 + 9, 3)).shape[1] - 1 == kept
    numbers = np.asarray(token_drop.TokenDrop(rate=rate).apply(_examples(), jax.random.key(0), BLOCK).kept)
    assert numbers.shape == (5, kept)
    for row in numbers:
        assert sorted(set(row.tolist())) == row.tolist() and row[0] >= 0 and row[-1] < 9


def test_sets_become_ascending_numbers():
    sets = np.array([[True, False, False, True, True], [False, True, True, True, False]])
    np.testing.assert_array_equal(token_drop.to_indices(jnp.asarray(sets), 3), [[0, 3, 4], [1, 2, 3]])


def test_contrast_and_brightness_change_every_value_alike_and_clip():
    examples, numbers = _examples(), np.array([0.0, 0.5, 1.0, 1.5, 2.0])
    scaled, shifted = (
        contrast.scale(examples.images, jnp.asarray(numbers)),
        brightness.shift(examples.images, jnp.asarray(100 * (numbers - 1))),
    )
    for i, number in enumerate(numbers):
        image = np.asarray(examples.images[i], np.float64)
        np.testing.assert_allclose(scaled[i], np.clip(127.5 + number * (image - 127.5), 0, 255), atol=1e-4)
        np.testing.assert_allclose(shifted[i], np.clip(image + 100 * (number - 1), 0, 255), atol=1e-4)


@pytest.mark.parametrize(
    ("spec", "bounds"), [("contrast:strength=0.3", (127.5 - 15 * 1.3, 127.5 - 15 * 0.7)), ("brightness", (61.5, 163.5))]
)
def test_strengths_bound_the_changes(spec, bounds):
    (method,) = cloud_augmentation.parse(spec).methods
    examples = Examples(jnp.full((3000, 1, 1, 3), 112.5), jnp.zeros((3000, 2)))
    values = np.asarray(method.apply(examples, jax.random.key(2), 1).images)
    assert (values == values[:, :1, :1, :1]).all()
    assert bounds[0] <= values.min() < values.max() <= bounds[1]
    # Uniform: the mean is in the middle, and the extremes are near the bounds.
    span = bounds[1] - bounds[0]
    assert abs(values.mean() - sum(bounds) / 2) < 0.03 * span
    assert values.max() - values.min() > 0.98 * span


def test_where_several_methods_mix_each_image_draws_one():
    augmentations = cloud_augmentation.parse("mixup+cutmix")
    images = jnp.tile(jnp.arange(200, dtype=jnp.uint8).reshape(-1, 1, 1, 1), (1, 8, 8, 3))
    mixed = augmentations.apply(images, jnp.eye(200), jax.random.key(0), BLOCK, "float32")
    flat = np.asarray(mixed.images).reshape(200, -1)
    values = [np.unique(row) for row in flat]
    both = sum(len(v) == 2 for v in values)
    between = sum(len(v) == 1 and v[0] != np.round(v[0]) for v in values)
    # Half draw mixup; of the others, four in five have a share that is neither 0 nor 1.
    assert 55 <= both <= 100 and 75 <= between <= 125
    for i, row in enumerate(np.asarray(mixed.targets)):
        np.testing.assert_allclose(row.sum(), 1, atol=1e-6)
        np.testing.assert_allclose(flat[i].mean(), row @ np.arange(200), atol=1e-3)


def test_draws_depend_on_the_random_key_alone_and_the_order_of_the_spec_does_not_matter():
    images, targets = random_images(4, 8), jnp.eye(4)

    def augment(spec, seed):
        augmentations = cloud_augmentation.parse(spec)
        return augmentations.apply(jnp.asarray(images), targets, jax.random.key(seed), BLOCK, "float32")

    one, same = augment("mixup+contrast+token_drop", 0), augment("token_drop+contrast+mixup", 0)
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert (np.asarray(augment("mixup+contrast+token_drop", 1).images) != np.asarray(one.images)).any()
    # A method's draws do not change when another is added.
    np.testing.assert_array_equal(augment("token_drop", 0).kept, one.kept)


def test_without_methods_nothing_changes():
    images, targets = jnp.asarray(random_images(2, 8)), jnp.eye(2)
    examples = cloud_augmentation.parse("none").apply(images, targets, jax.random.key(0), BLOCK, "float32")
    assert examples.images is images and examples.targets is targets and examples.kept is None
