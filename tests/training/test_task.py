"""Losses and counts of both tasks."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from ppvit_jax.training.examples import Examples
from ppvit_jax.training.task import compute_losses, count_correct

LOGITS = np.random.default_rng(0).normal(0, 2, (6, 4)).astype(np.float32)


@pytest.mark.slow
def test_the_loss_of_several_labels_is_the_mean_sigmoid_cross_entropy():
    labels = np.random.default_rng(1).integers(0, 2, (6, 4)).astype(np.uint8)
    probabilities = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    expected = [metrics.log_loss(row, shares, labels=[0, 1]) for row, shares in zip(labels, probabilities, strict=True)]
    losses = compute_losses(jnp.array(LOGITS), jnp.array(labels), "multi_label")
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert int(count_correct(jnp.array(LOGITS), jnp.array(labels), "multi_label")) == round(
        float(metrics.accuracy_score(labels, LOGITS > 0, normalize=False))
    )


def test_the_loss_of_one_label_is_the_softmax_cross_entropy():
    labels = np.array([0, 1, 2, 3, 0, 1])
    shares = np.exp(LOGITS.astype(np.float64))
    shares /= shares.sum(1, keepdims=True)
    losses = compute_losses(jnp.array(LOGITS), jnp.array(labels), "single_label")
    np.testing.assert_allclose(losses, -np.log(shares[np.arange(6), labels]), rtol=1e-5)
    assert (
        int(count_correct(jnp.array(LOGITS), jnp.array(labels), "single_label")) == (LOGITS.argmax(1) == labels).sum()
    )


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_several_labels_of_mixed_images_have_their_shares(share):
    labels = np.array([[1, 0, 1, 0], [0, 0, 1, 1]], np.uint8)
    examples = Examples(jnp.zeros((2, 1, 1, 3)), jnp.array(labels), None)
    mixed = examples.mix_labels(jnp.full(2, share), 4, 0.0)
    assert mixed.targets is not None
    other = labels[::-1].astype(np.float32)
    np.testing.assert_allclose(mixed.targets, share * labels + (1 - share) * other, rtol=1e-6)
    np.testing.assert_array_equal(mixed.labels, labels if share > 0.5 else labels[::-1])
    losses = mixed.losses(jnp.array(LOGITS[:2]), 0.0, "multi_label")
    own, theirs = (compute_losses(jnp.array(LOGITS[:2]), jnp.array(rows), "multi_label") for rows in (labels, other))
    np.testing.assert_allclose(losses, share * own + (1 - share) * theirs, rtol=1e-5)
