"""The attack sees only images that are encrypted with unknown keys: crops of photographs, with small blocks."""

import numpy as np
import pytest
from helpers.marks import mark_slow
from helpers.photographs import crops, encrypt

from ppvit_jax.audit import scoring
from ppvit_jax.audit.solvers import ciphertext_only, correlation
from ppvit_jax.encryption import parse
from ppvit_jax.encryption.permutations import split_blocks
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

SIZE, BLOCK = 96, 8


@pytest.fixture(scope="module")
def images():
    return crops(12, SIZE)


def _attack(spec, images, key, block_size=BLOCK, **options):
    method = parse(spec, block_size)
    encrypted, truth = encrypt(method, images, key)
    estimate = ciphertext_only.solve(method, encrypted, **options)
    recovered = scoring.align(method.decrypt(encrypted, estimate), images)
    return estimate, truth, scoring.compare_images(recovered, images, encrypted)


@pytest.mark.parametrize(
    "spec",
    mark_slow(
        [
            "bs",
            "ps",
            "bs+ps",
            "restricted",
            "np",
            "bs+ps+np",
            "bs+pps",
            "etc:shared=True",
            "etc:shared=True,sub_block_size=4",
        ],
        but=["bs", "np", "etc:shared=True"],
    ),
)
def test_methods_that_treat_all_blocks_alike_are_recovered(spec, images):
    estimate, truth, picture = _attack(spec, images, key=3)
    places = scoring.compare_places(estimate, truth, SIZE, BLOCK)
    assert sorted(estimate["index"]) == list(range(SIZE * SIZE * 3))
    assert places.blocks > 0.95 and places.values > 0.8
    assert picture.ssim > 0.85 > picture.encrypted_ssim + 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "block_size"), [("etc", BLOCK), ("pe", BLOCK), ("le", 4)])
def test_methods_with_separate_solvers_are_recovered(spec, block_size, images):
    *_, picture = _attack(spec, images, key=4, block_size=block_size)
    assert picture.ssim > 0.6 > picture.encrypted_ssim


@pytest.mark.parametrize(
    "spec", ["bs+ps+np:shared=False", "bs+pps:shared=none", "ele", "pe:keys=per_image", "neuracrypt"]
)
def test_methods_without_an_attack_are_refused(spec, images):
    with pytest.raises(UserError, match=r"no attack .* proves nothing"):
        ciphertext_only.solve(parse(spec, 4), images)


@pytest.mark.slow
def test_noise_reveals_nothing():
    """Images without structure do not reveal the key, so the attack must fail on them."""
    noise = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    estimate, truth, picture = _attack("bs+ps", noise, key=5)
    places = scoring.compare_places(estimate, truth, SIZE, BLOCK)
    assert places.values < 0.1 and places.blocks < 0.1 and picture.ssim < 0.2


@pytest.mark.slow
def test_a_reference_determines_the_channels(images):
    """Without a reference, the order of the three channels is unknown."""
    values = split_blocks(images, BLOCK).reshape(-1, BLOCK**2 * 3)
    half = len(values) // 2
    order = SecretKey(bytes([2] * 32)).permutation("pixel", values.shape[1])
    found = correlation.arrange(values[:half, order], BLOCK, reference=values[half:])
    assert np.mean(found.pixel % 3 == order % 3) > 0.95


@pytest.mark.slow
def test_the_first_eigenvector_shows_inverted_values(images):
    values = split_blocks(images, BLOCK).reshape(-1, BLOCK**2 * 3)
    for seed in range(5):
        negative = np.random.default_rng(seed).random(values.shape[1]) < 0.4
        found = correlation.signs(correlation.correlate(values ^ (negative * np.uint8(255))))
        assert (found == negative).all() or (found != negative).all()
