"""Losses of mixed examples: those of both labels, by explicit sums."""

import jax.numpy as jnp
import numpy as np
import pytest

from ppvit_jax.training.examples import Examples

SHARES = np.array([1.0, 0.75, 0.5, 0.2], np.float32)
LOGITS = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
LABELS = np.array([2, 0, 1, 1])


def _cross_entropy(logits, label, smoothing):
    log_probabilities = logits - np.log(np.exp(logits).sum())
    return -(1 - smoothing) * log_probabilities[label] - smoothing * log_probabilities.mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, np.array([1.0, 2.0, 0.5, 3.0], np.float32)])
def test_the_loss_of_a_mixture_is_that_of_both_labels_with_their_weights(smoothing, weights):
    given = None if weights is None else jnp.asarray(weights)
    examples = Examples(jnp.zeros((4, 1)), jnp.asarray(LABELS), given)
    mixed = examples.mix_labels(jnp.asarray(SHARES), 3, smoothing)
    losses = mixed.losses(jnp.asarray(LOGITS), smoothing)
    weights = np.ones(4) if weights is None else weights
    for i, share in enumerate(SHARES):
        other = (i + 1) % 4
        expected = share * weights[i] * _cross_entropy(LOGITS[i], LABELS[i], smoothing)
        expected += (1 - share) * weights[other] * _cross_entropy(LOGITS[i], LABELS[other], smoothing)
        np.testing.assert_allclose(losses[i], expected, rtol=1e-5)
    np.testing.assert_array_equal(mixed.labels, [2, 0, 1, 2])


def test_the_loss_of_a_mixture_of_several_labels_is_that_of_both_sets():
    labels = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    mixed = Examples(jnp.zeros((4, 1)), jnp.asarray(labels), None).mix_labels(jnp.asarray(SHARES), 3, 0.0)
    losses = mixed.losses(jnp.asarray(LOGITS), 0.0, "multi_label")
    for i, share in enumerate(SHARES):
        softplus = np.logaddexp(0, LOGITS[i])
        own, other = (softplus - labels[j] * LOGITS[i] for j in (i, (i + 1) % 4))
        np.testing.assert_allclose(losses[i], (share * own + (1 - share) * other).mean(), rtol=1e-5)
    np.testing.assert_array_equal(mixed.labels, labels[[0, 1, 2, 0]])


@pytest.mark.slow
def test_without_shares_nothing_is_mixed():
    examples = Examples(jnp.zeros((4, 1)), jnp.asarray(LABELS), None)
    assert examples.mix_labels(None, 3, 0.1) is examples
