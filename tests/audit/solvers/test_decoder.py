"""The decoder learns from pairs to decode the encodings of images that it has not seen."""

import itertools

import numpy as np
import pytest
from helpers.marks import mark_slow
from helpers.photographs import crops, encrypt
from skimage.metrics import structural_similarity

from ppvit_jax.audit.solvers.decoder import learn
from ppvit_jax.encryption import parse
from ppvit_jax.encryption.permutations import split_blocks
from ppvit_jax.errors import UserError


def encode(spec, images, key, block_size=8):
    return encrypt(parse(spec, block_size), images, key)[0]


def error(images, others):
    return np.mean((images.astype(np.float64) - others) ** 2)


def similarity(images, others):
    pairs = zip(images, others, strict=True)
    return np.mean([structural_similarity(image, other, channel_axis=2) for image, other in pairs])


@pytest.mark.parametrize(
    ("spec", "key"),
    mark_slow(
        itertools.product(["color-neuracrypt", "neuracrypt:width=192,reorder=False", "neuracrypt:width=192"], [1, 2]),
        but=[("neuracrypt:width=192,reorder=False", 1)],
    ),
)
def test_unseen_images_are_decoded_and_more_pairs_help(spec, key):
    images = crops(140, seed=key)
    encodings = encode(spec, images, key)
    unseen = images[120:]
    decoders = [learn(images[:n], encodings[:n], 8, reordered=spec == "neuracrypt:width=192") for n in (20, 120)]
    few, many = (decoder.decode(encodings[120:]) for decoder in decoders)
    assert few.dtype == np.uint8 and few.shape == unseen.shape
    mean = np.repeat(images[:120].mean(axis=0, keepdims=True).astype(np.uint8), 20, axis=0)
    assert error(unseen, many) < error(unseen, few) < error(unseen, mean) / 4
    assert error(unseen, many) < error(unseen, mean) / 8
    assert similarity(unseen, many) > similarity(unseen, mean) + 0.1
    # The decoder cannot decode encodings with another key.
    other = decoders[1].decode(encode(spec, unseen, key + 100))
    assert error(unseen, other) > error(unseen, mean) / 2


def test_a_linear_encoding_is_decoded_exactly():
    images = crops(60, seed=4)
    random = np.random.default_rng(0)
    positions = random.standard_normal((16, 200)) * 100
    encodings = split_blocks(images, 8) @ random.standard_normal((192, 200)) + positions
    decoded = learn(images[:50], encodings[:50], 8).decode(encodings[50:])
    assert np.abs(decoded.astype(int) - images[50:]).max() <= 1


def test_patches_in_any_order_are_decoded_like_those_in_order():
    images = crops(120, seed=5)
    encodings = encode("neuracrypt:width=192,reorder=False", images, 6)
    random = np.random.default_rng(1)
    mixed = np.stack([image[random.permutation(len(image))] for image in encodings])
    ordered = learn(images[:100], encodings[:100], 8)
    np.testing.assert_array_equal(
        learn(images[:100], mixed[:100], 8, reordered=True).decode(mixed[100:]), ordered.decode(encodings[100:])
    )


def test_inputs_that_do_not_fit_are_refused():
    images = crops(4)
    encodings = np.random.default_rng(0).standard_normal((4, 16, 20))
    decoder = learn(images, encodings, 8)
    for attempt, message in (
        (lambda: learn(images[:0], encodings[:0], 8), "at least 1"),
        (lambda: learn(images[:2], encodings[:2], 8, reordered=True), "at least 3"),
        (lambda: learn(images, encodings[:3], 8), "for each"),
        (lambda: learn(images, encodings, 16), "block size"),
        (lambda: learn(images, encodings, 5), "does not divide"),
        (lambda: learn(images, encodings[:, 0], 8), "give"),
        (lambda: decoder.decode(encodings[:, :9]), "do not fit"),
        (lambda: decoder.decode(encodings[:, :, :9]), "do not fit"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            attempt()
        assert "\n" not in str(caught.value)
