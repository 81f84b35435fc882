"""Weights and orders of unequal classes, compared with scikit-learn and with counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from ppvit_jax.config import check, default_config
from ppvit_jax.data.balance import balanced_order, balanced_weights
from ppvit_jax.data.loader import BatchOptions, train_batches
from ppvit_jax.data.source import ArraySource
from ppvit_jax.errors import UserError

LABELS = st.lists(st.integers(0, 6), min_size=4, max_size=60).map(lambda labels: np.array(labels, np.int32))


def _source(labels):
    """Returns a source whose image i is full of i."""
    labels = np.asarray(labels, np.int32)
    return ArraySource(np.tile(np.arange(len(labels), dtype=np.uint8)[:, None, None, None], (1, 2, 2, 3)), labels)


def _indices(labels, start, stop, batch_size=4, seed=0, **options):
    """Returns the indices of the images in each batch."""
    sizes = BatchOptions(batch_size, sampling="balanced", **options)
    batches = train_batches(_source(labels), sizes, seed=seed, start_step=start, stop_step=stop)
    return [batch["image"][:, 0, 0, 0].tolist() for batch in batches]


@settings(deadline=None)
@given(LABELS)
def test_the_weights_are_those_of_scikit_learn(labels):
    present = np.unique(labels)
    weights = balanced_weights(labels)
    np.testing.assert_allclose(weights[present], compute_class_weight("balanced", classes=present, y=labels), rtol=1e-6)
    assert not np.delete(weights, present).any() and weights.dtype == np.float32
    np.testing.assert_allclose(weights[labels].mean(), 1, rtol=1e-5)


@settings(deadline=None)
@given(LABELS, st.integers(0, 200), st.integers(0, 2**32))
def test_an_order_has_each_class_equally_often_and_repeats_no_image_early(labels, length, seed):
    order = balanced_order(labels, length, np.random.default_rng(seed))
    assert order.shape == (length,)
    counts = np.bincount(labels[order], minlength=7)[np.unique(labels)]
    assert counts.max() - counts.min() <= 1
    for label in np.unique(labels):
        shown = np.bincount(order[labels[order] == label], minlength=len(labels))[labels == label]
        assert shown.max() - shown.min() <= 1


def test_orders_are_random_and_the_seeds():
    labels = np.repeat([0, 1, 2], [30, 8, 2])
    one, same, other = (balanced_order(labels, 40, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (one == same).all() and (one != other).any()
    # Classes are mixed, and do not come one after another.
    assert (np.diff(labels[one]) != 0).sum() > 15


def test_balanced_batches_depend_on_the_step_alone_and_an_epoch_keeps_its_length():
    labels = [0] * 17 + [1] * 4 + [2] * 2
    whole = _indices(labels, 0, 15)
    for start in (1, 5, 7, 14):
        assert _indices(labels, start, 15) == whole[start:]
    # 23 images fill five batches of four: 20 places, of which each class has six or seven.
    for epoch in range(3):
        shown = np.bincount(np.take(labels, np.concatenate(whole[5 * epoch : 5 * epoch + 5])))
        assert sorted(shown) in ([6, 7, 7],)
    assert whole[:5] != whole[5:10] and _indices(labels, 0, 15, seed=1) != whole


def test_processes_share_a_balanced_batch():
    labels = [0] * 9 + [1] * 3
    whole = _indices(labels, 0, 6)
    parts = [_indices(labels, 0, 6, process_index=index, process_count=2) for index in range(2)]
    assert [first + second for first, second in zip(*parts, strict=True)] == whole


def test_a_batch_has_the_weights_of_its_images_and_none_without_weights():
    labels = np.array([0] * 6 + [1] * 2, np.int32)
    for index_only in (False, True):
        options = BatchOptions(4, class_weights=balanced_weights(labels), index_only=index_only)
        for batch in train_batches(_source(labels), options, seed=0, start_step=0, stop_step=4):
            np.testing.assert_allclose(batch["weight"], np.where(batch["label"] == 0, 8 / 12, 2), rtol=1e-6)
            assert batch["weight"].dtype == np.float32
    (batch,) = train_batches(_source(labels), BatchOptions(4), seed=0, start_step=0, stop_step=1)
    assert batch.keys() == {"image", "label", "number"}


def test_images_with_several_labels_are_refused():
    with pytest.raises(UserError, match="several labels have no class to balance"):
        balanced_weights(np.zeros((3, 2)))
    with pytest.raises(UserError, match="several labels"):
        balanced_order(np.zeros((3, 2)), 4, np.random.default_rng(0))


@pytest.mark.parametrize(("field", "value"), [("class_weights", "equal"), ("remat", "all"), ("data.sampling", "rare")])
def test_an_unknown_choice_is_named_with_the_others(field, value):
    config = default_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=rf"config\.{field} is '{value}': use one of '(none|uniform)', "):
        check(config)
