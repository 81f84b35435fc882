import itertools

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from ppvit_jax.audit import scoring
from ppvit_jax.encryption import Permutations, parse
from ppvit_jax.encryption.block_pixel_negative_positive import BlockPixelNegativePositive
from ppvit_jax.encryption.blockwise import make_secret
from ppvit_jax.keys import SecretKey

SIZE, BLOCK = 24, 4
SPECS = ["bs", "ps", "bs+ps", "bs+ps+np", "etc", "bs+pps:shared=none"]


def _secret(spec, key=1):
    return parse(spec, BLOCK).derive(SecretKey(bytes([key] * 32)), height=SIZE, width=SIZE)


def _seen(secret, flip, turn, order, negative):
    """Returns the estimate of an attacker to whom the picture looks flipped, turned, recolored and inverted."""
    places = np.arange(SIZE * SIZE * 3).reshape(SIZE, SIZE, 3)
    view = np.rot90(places.swapaxes(0, 1) if flip else places, turn)[..., list(order)].ravel()
    estimate = {"index": np.argsort(view)[secret["index"]]}
    mask = secret.get("mask", np.zeros(SIZE * SIZE * 3, np.uint8))
    return estimate | {"mask": mask ^ np.uint8(255 if negative else 0)}


@pytest.mark.parametrize("spec", SPECS)
def test_every_symmetry_of_the_truth_is_exact(spec):
    secret = _secret(spec)
    plain = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
    encrypted = BlockPixelNegativePositive(block_size=BLOCK).encrypt(plain, secret)
    for flip, turn, order, negative in itertools.product(
        (False, True), (0, 1, 3), ((0, 1, 2), (2, 0, 1), (0, 2, 1)), (False, True)
    ):
        estimate = _seen(secret, flip, turn, order, negative)
        assert scoring.compare_places(estimate, secret, SIZE, BLOCK).exact
        recovered = BlockPixelNegativePositive(block_size=BLOCK).decrypt(encrypted, estimate)
        np.testing.assert_array_equal(scoring.align(recovered, plain), plain)


def test_errors_in_an_estimate_are_counted():
    permutations = BlockPixelNegativePositive(block_size=BLOCK).permutations(
        SecretKey(bytes([1] * 32)), height=SIZE, width=SIZE
    )
    truth = make_secret(permutations, SIZE, SIZE, BLOCK)
    assert permutations.block is not None and permutations.pixel is not None and permutations.negative is not None
    block, pixel, negative = permutations.block.copy(), permutations.pixel.copy(), permutations.negative.copy()
    block[[0, 1]] = block[[1, 0]]
    pixel[[0, 1, 2]] = pixel[[1, 2, 0]]
    found = scoring.compare_places(
        make_secret(Permutations(block, pixel, negative), SIZE, SIZE, BLOCK), truth, SIZE, BLOCK
    )
    assert found.blocks == pytest.approx(34 / 36) and found.values == pytest.approx(45 / 48)
    negative[5] ^= True
    found = scoring.compare_places(
        make_secret(Permutations(block, pixel, negative), SIZE, SIZE, BLOCK), truth, SIZE, BLOCK
    )
    assert found.values == pytest.approx(44 / 48)


def test_neighbors_and_the_largest_component():
    """After exchanging the two halves, all neighbors except those across the cut are right."""
    side = SIZE // BLOCK
    cells = np.arange(side**2).reshape(side, side)
    truth = make_secret(Permutations(cells.ravel()), SIZE, SIZE, BLOCK)
    halves = np.concatenate([cells[:, side // 2 :], cells[:, : side // 2]], axis=1)
    found = scoring.compare_places(make_secret(Permutations(halves.ravel()), SIZE, SIZE, BLOCK), truth, SIZE, BLOCK)
    assert found.blocks == 0
    pairs = 2 * side * (side - 1)
    assert found.neighbors == pytest.approx((pairs - side) / pairs)
    assert found.component == 0.5


def test_a_wrong_key_is_near_chance():
    found = scoring.compare_places(_secret("bs+ps", 2), _secret("bs+ps", 1), SIZE, BLOCK)
    assert not found.exact
    assert max(found.blocks, found.values) < 0.25 and found.neighbors < 0.2


def test_pictures_are_compared_by_their_mean():
    random = np.random.default_rng(0)
    plain, other = random.integers(0, 256, (2, 3, 16, 16, 3), np.uint8)
    found = scoring.compare_images(other, plain, other)
    expected = np.mean([structural_similarity(a, b, channel_axis=2) for a, b in zip(plain, other, strict=True)])
    assert found.ssim == found.encrypted_ssim == pytest.approx(expected)
    ratios = [10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()) for a, b in zip(plain, other, strict=True)]
    assert found.psnr == pytest.approx(np.mean(ratios))
    same = scoring.compare_images(plain, plain, np.zeros((3, 4, 8)))
    assert same.ssim == 1 and same.psnr == np.inf and np.isnan(same.encrypted_ssim)


def test_the_likeness_of_neighbors_and_channels_is_their_mean_correlation():
    """Compares with `np.corrcoef` over the blocks of all images, one pair of places at a time."""
    random = np.random.default_rng(0)
    images = random.integers(0, 200, (3, 12, 12, 3)) + random.integers(0, 56, (3, 12, 12, 1))
    images = images.astype(np.uint8)
    blocks = [
        image[row : row + 4, column : column + 4]
        for image in images
        for row, column in itertools.product(range(0, 12, 4), repeat=2)
    ]
    blocks = np.array(blocks, float)

    def mean(pairs):
        return np.mean(
            [np.corrcoef(blocks[(slice(None), *one)], blocks[(slice(None), *two)])[0, 1] for one, two in pairs]
        )

    places = list(itertools.product(range(4), range(4), range(3)))
    neighbors = [((i, j, c), (i + 1, j, c)) for i, j, c in places if i < 3]
    neighbors += [((i, j, c), (i, j + 1, c)) for i, j, c in places if j < 3]
    channels = [((i, j, c), (i, j, d)) for i, j, c in places for d in range(c)]
    found = scoring.measure_likeness(images, 4)
    assert (found.neighbors, found.channels) == pytest.approx((mean(neighbors), mean(channels)))
    # The same in all channels, and in all pixels of a block.
    gray = np.repeat(images[..., :1], 3, axis=-1)
    flat = np.repeat(np.repeat(images[:, ::4, ::4], 4, axis=1), 4, axis=2)
    assert scoring.measure_likeness(gray, 4).channels == pytest.approx(1)
    assert scoring.measure_likeness(flat, 4).neighbors == pytest.approx(1)
