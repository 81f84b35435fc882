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
from ppvit_jax.cloud_augmentation.method import Augmented, draw_set, draw_share, next_examples
from ppvit_jax.training.examples import Examples

BLOCK = 4


def _images(count=5, size=12, dtype: type = np.float32):
    return jnp.asarray(random_images(count, size).astype(dtype))


def test_mixup_is_a_sum_of_each_image_and_the_next():
    images, shares = _images(), np.array([0.0, 0.25, 0.5, 0.9, 1.0])
    mixed = mixup.mix(images, next_examples(images), jnp.asarray(shares))
    for i, w in enumerate(shares):
        np.testing.assert_allclose(mixed[i], w * images[i] + (1 - w) * images[(i + 1) % 5], rtol=1e-6)


@pytest.mark.slow
def test_mixup_and_its_labels_agree_with_timm():
    images, labels = _images(4), np.array([2, 0, 1, 1])
    theirs = timm.data.Mixup(mixup_alpha=0.4, label_smoothing=0.1, num_classes=3)
    mixed, targets = theirs(torch.tensor(np.asarray(images)).permute(0, 3, 1, 2), torch.tensor(labels))
    # timm mixes with the batch in reverse order, and we with the next example: pairs are the same in this order.
    order = [0, 3]
    share = (targets[0, 2] - 0.1 / 3) / 0.9
    assert 0 < share < 1
    shares = jnp.full(2, float(share))
    pair = images[jnp.array(order)]
    ours = mixup.mix(pair, next_examples(pair), shares)
    np.testing.assert_allclose(ours, mixed.permute(0, 2, 3, 1)[order], rtol=1e-5, atol=1e-3)
    examples = Examples(pair, jnp.asarray(labels[order]), None).mix_labels(shares, 3, 0.1)
    assert examples.targets is not None
    np.testing.assert_allclose(examples.targets, targets[order], atol=1e-6)


@pytest.mark.slow
def test_the_shares_of_mixup_and_cutmix_have_the_beta_distribution():
    keys = jax.random.split(jax.random.key(0), 4000)
    shares = np.asarray(jax.jit(jax.vmap(lambda key: draw_share(key, 0.4, 2)))(keys))
    assert (shares[:, 0] == shares[:, 1]).all()
    assert abs(shares.mean() - 0.5) < 0.02
    assert abs(shares.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.005


def test_cutmix_takes_whole_blocks_of_the_next_image():
    images = _images()
    taken = np.random.default_rng(1).random((5, 9)) < 0.4
    mixed = cutmix.exchange(images, next_examples(images), jnp.asarray(taken), BLOCK)
    for i in range(5):
        expected = np.array(images[i])
        for block in np.flatnonzero(taken[i]):
            row, column = block // 3 * BLOCK, block % 3 * BLOCK
            place = slice(row, row + BLOCK), slice(column, column + BLOCK)
            expected[place] = images[(i + 1) % 5][place]
        np.testing.assert_array_equal(mixed[i], expected)


@pytest.mark.slow
def test_cutmix_shares_are_areas_and_bytes_stay_bytes():
    images = jnp.tile(jnp.arange(8, dtype=jnp.uint8).reshape(-1, 1, 1, 1), (1, 12, 12, 3))
    apply = jax.jit(lambda key: cutmix.CutMix().apply(Augmented(images), key, BLOCK))
    found, sets = set(), set()
    for seed in range(40):
        mixed = apply(jax.random.key(seed))
        assert mixed.images.dtype == jnp.uint8
        own = np.asarray(mixed.images) == np.arange(8).reshape(-1, 1, 1, 1)
        np.testing.assert_allclose(np.asarray(mixed.shares), own.mean((1, 2, 3)), atol=1e-6)
        found.add(round(9 * float(own[0].mean())))
        sets |= {image.tobytes() for image in own}
    # Beta(1, 1) is uniform, and each image has a set of its own.
    assert len(found) >= 9 and len(sets) > 150


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
    numbers = np.asarray(token_drop.TokenDrop(rate=rate).apply(Augmented(_images()), jax.random.key(0), BLOCK).kept)
    assert numbers.shape == (5, kept)
    for row in numbers:
        assert sorted(set(row.tolist())) == row.tolist() and row[0] >= 0 and row[-1] < 9


def test_sets_become_ascending_numbers():
    sets = np.array([[True, False, False, True, True], [False, True, True, True, False]])
    np.testing.assert_array_equal(token_drop.to_indices(jnp.asarray(sets), 3), [[0, 3, 4], [1, 2, 3]])


def test_contrast_and_brightness_change_every_value_alike_and_clip():
    images, numbers = _images(), np.array([0.0, 0.5, 1.0, 1.5, 2.0])
    scaled, shifted = (
        contrast.scale(images, jnp.asarray(numbers)),
        brightness.shift(images, jnp.asarray(100 * (numbers - 1))),
    )
    for i, number in enumerate(numbers):
        image = np.asarray(images[i], np.float64)
        np.testing.assert_allclose(scaled[i], np.clip(127.5 + number * (image - 127.5), 0, 255), atol=1e-4)
        np.testing.assert_allclose(shifted[i], np.clip(image + 100 * (number - 1), 0, 255), atol=1e-4)


@pytest.mark.parametrize(
    ("spec", "bounds"), [("contrast:strength=0.3", (127.5 - 15 * 1.3, 127.5 - 15 * 0.7)), ("brightness", (61.5, 163.5))]
)
def test_strengths_bound_the_changes(spec, bounds):
    (method,) = cloud_augmentation.parse(spec).methods
    gray = Augmented(jnp.full((3000, 1, 1, 3), 112.5))
    values = np.asarray(method.apply(gray, jax.random.key(2), 1).images)
    assert (values == values[:, :1, :1, :1]).all()
    assert bounds[0] <= values.min() < values.max() <= bounds[1]
    # Uniform: the mean is in the middle, and the extremes are near the bounds.
    span = bounds[1] - bounds[0]
    assert abs(values.mean() - sum(bounds) / 2) < 0.03 * span
    assert values.max() - values.min() > 0.98 * span


@pytest.mark.slow
def test_where_several_methods_mix_each_image_draws_one():
    augmentations = cloud_augmentation.parse("mixup:alpha=100+cutmix:alpha=100")
    images = jnp.tile(jnp.arange(200, dtype=jnp.uint8).reshape(-1, 1, 1, 1), (1, 8, 8, 3))
    mixed = augmentations.apply(images, jax.random.key(0), BLOCK, "float32")
    flat = np.asarray(mixed.images).reshape(200, -1)
    # A large alpha keeps both shares near one half: mixup gives one value between two, CutMix both of them.
    values = [len(np.unique(row)) for row in flat]
    assert values.count(1) + values.count(2) == 200
    assert 70 <= values.count(1) <= 130
    shares = np.asarray(mixed.shares)
    expected = shares * np.arange(200) + (1 - shares) * np.roll(np.arange(200), -1)
    np.testing.assert_allclose(flat.mean(1), expected, atol=1e-3)


@pytest.mark.slow
def test_draws_depend_on_the_random_key_alone_and_the_order_of_the_spec_does_not_matter():
    def augment(spec, seed):
        return cloud_augmentation.parse(spec).apply(
            jnp.asarray(random_images(4, 8)), jax.random.key(seed), BLOCK, "float32"
        )

    one, same = augment("mixup+contrast+token_drop", 0), augment("token_drop+contrast+mixup", 0)
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert (np.asarray(augment("mixup+contrast+token_drop", 1).images) != np.asarray(one.images)).any()
    # A method's draws do not change when another is added.
    np.testing.assert_array_equal(np.asarray(augment("token_drop", 0).kept), np.asarray(one.kept))


@pytest.mark.slow
def test_without_methods_nothing_changes():
    images = jnp.asarray(random_images(2, 8))
    augmented = cloud_augmentation.parse("none").apply(images, jax.random.key(0), BLOCK, "float32")
    assert augmented.images is images and augmented.shares is None and augmented.kept is None
