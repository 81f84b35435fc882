"""Recovery of a secret orthogonal matrix from weights and from known patches."""

import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.datasets import load_sample_image

from ppvit_jax.audit.solvers.orthogonal import from_pairs, procrustes
from ppvit_jax.encryption.permutations import split_blocks
from ppvit_jax.errors import UserError

SECRETS = [ortho_group.rvs(48, random_state=seed) for seed in range(3)]


def _patches(name):
    return split_blocks(load_sample_image(name)[:320, :320].astype(float) / 255, 4)


@pytest.mark.parametrize("secret", SECRETS)
def test_the_weights_reveal_the_matrix(secret):
    kernel = np.random.default_rng(0).standard_normal((4, 4, 3, 64))
    adapted = (secret.T @ kernel.reshape(48, 64)).reshape(kernel.shape)
    patches = _patches("china.jpg")
    # The variant adapts the model exactly, which makes it tempting.
    np.testing.assert_allclose(patches @ secret @ adapted.reshape(48, 64), patches @ kernel.reshape(48, 64), atol=1e-10)
    found = procrustes(kernel, adapted)
    np.testing.assert_allclose(found, secret, rtol=0, atol=1e-10)
    tuned = adapted + 0.1 * np.random.default_rng(1).standard_normal(adapted.shape)
    restored = patches @ secret @ procrustes(kernel, tuned).T
    # With noise of 0.1, the peak signal-to-noise ratio is about 27 dB. Without Q it is less than 10 dB.
    assert ((restored - patches) ** 2).mean() < 10**-2.5 < 0.1 < ((patches @ secret - patches) ** 2).mean()


@pytest.mark.parametrize("secret", SECRETS)
def test_known_patches_of_one_picture_decrypt_another(secret):
    known, unknown = _patches("china.jpg"), _patches("flower.jpg")
    found = from_pairs(known, known @ secret)
    np.testing.assert_allclose(found @ found.T, np.eye(48), rtol=0, atol=1e-10)
    np.testing.assert_allclose(unknown @ secret @ found.T, unknown, rtol=0, atol=1e-6)


def test_known_patches_reveal_the_matrix_only_on_their_span():
    random, secret = np.random.default_rng(0), SECRETS[0]
    known = random.standard_normal((10, 48))
    found = from_pairs(known, known @ secret)
    np.testing.assert_allclose(known @ secret @ found.T, known, rtol=0, atol=1e-10)
    unknown = random.standard_normal((10, 48))
    assert abs(unknown @ secret @ found.T - unknown).max() > 0.1


def test_an_embedding_with_few_hidden_units_reveals_its_span():
    kernel, secret = np.random.default_rng(0).standard_normal((48, 32)), SECRETS[0]
    found = procrustes(kernel, secret.T @ kernel)
    np.testing.assert_allclose(found.T @ kernel, secret.T @ kernel, rtol=0, atol=1e-10)
    assert abs(found - secret).max() > 0.1


def test_shapes_that_differ_are_refused():
    with pytest.raises(UserError, match="give models of the same size"):
        procrustes(np.zeros((4, 4, 3, 8)), np.zeros((4, 4, 3, 16)))
    with pytest.raises(UserError, match="give them in pairs"):
        from_pairs(np.zeros((3, 48)), np.zeros((4, 48)))
