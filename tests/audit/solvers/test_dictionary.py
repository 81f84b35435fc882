"""The dictionary attack recognizes encrypted images among candidates without a key, and finds duplicates."""

import numpy as np
import pytest
from helpers import photographs
from helpers.photographs import crops

from ppvit_jax.audit.solvers.dictionary import duplicates, identify
from ppvit_jax.encryption import parse
from ppvit_jax.errors import UserError

EXACT = [
    "bs",
    "ps",
    "bs+ps",
    "restricted",
    "np",
    "bs+ps+np",
    "bs+ps+np:shared=False",
    "bs+pps:shared=none",
    "etc",
    "etc:sub_block_size=4",
    "etc:shared=True,channels=none",
    "pe",
    "pe:keys=per_image",
    "le",
    "ele",
]
LEGACY = ["etc:channels=published", "etc:channels=in_place", "etc:channels=in_place,shared=True,sub_block_size=4"]
ENCODING = ["color-neuracrypt:depth=2", "color-neuracrypt:separate=True", "neuracrypt:reorder=False,width=128"]


def encrypt(method, images, key):
    return photographs.encrypt(method, images, key, first=key)[0]


def keyed(method, images):
    """Encrypts every image with its own key."""
    return np.concatenate([encrypt(method, image[None], key + 1) for key, image in enumerate(images)])


@pytest.mark.parametrize("spec", EXACT)
def test_every_image_is_recognized_whatever_its_key(spec):
    method, candidates = parse(spec, 8), crops(60)
    numbers = np.random.default_rng(1).permutation(60)[:12]
    found = identify(method, candidates, keyed(method, candidates[numbers]))
    np.testing.assert_array_equal(found.index, numbers)
    np.testing.assert_array_equal(found.distance, 0)
    assert (found.runner_up > 0).all()


@pytest.mark.parametrize("spec", EXACT)
def test_an_image_that_is_no_candidate_is_at_a_distance(spec):
    method, images = parse(spec, 8), crops(60)
    found = identify(method, images[:50], keyed(method, images[50:]))
    assert (found.distance > 0).all() and (found.runner_up >= found.distance).all()


@pytest.mark.parametrize("spec", LEGACY)
def test_lossy_channels_still_reveal_the_image(spec):
    method, candidates = parse(spec, 8), crops(60)
    found = identify(method, candidates, keyed(method, candidates[5:25]))
    np.testing.assert_array_equal(found.index, np.arange(5, 25))


@pytest.mark.slow
@pytest.mark.parametrize("spec", ENCODING)
def test_encodings_are_recognized_by_similar_patches(spec):
    method, candidates = parse(spec, 8), crops(60, size=96)
    for key in (1, 2):
        found = identify(method, candidates, encrypt(method, candidates[10:40], key))
        # Chance is 1 in 60.
        assert (found.index == np.arange(10, 40)).mean() > 0.5


def test_candidates_may_come_in_batches():
    method, candidates = parse("bs+ps", 8), crops(37)
    encrypted = keyed(method, candidates[::4])
    whole = identify(method, candidates, encrypted)
    parts = identify(method, (candidates[i : i + 5] for i in range(0, 37, 5)), encrypted)
    alone = identify(method, (candidates[i : i + 1] for i in range(37)), encrypted)
    for other in (parts, alone):
        np.testing.assert_array_equal(whole.index, other.index)
        np.testing.assert_allclose(whole.distance, other.distance)
        np.testing.assert_allclose(whole.runner_up, other.runner_up)


def test_distances_follow_their_definition():
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[0, :, 4:], images[1, :, :4], images[2] = 100, 40, 127
    method = parse("bs", 8)
    # The means of |v - 127.5| are 77.5, 107.5 and 0.5.
    found = identify(method, images[1:], images[:1])
    assert (found.index[0], found.distance[0], found.runner_up[0]) == (0, 30, 77)
    # With blocks of 4: blocks that move are compared in sorted order, and blocks that stay are compared in place.
    swapped = images[:1, :, ::-1]
    assert identify(parse("bs", 4), images[:1], swapped).distance[0] == 0
    assert identify(parse("ps", 4), images[:1], swapped).distance[0] == 100
    assert identify(parse("bs", 4), images[:1], swapped).runner_up[0] == np.inf


@pytest.mark.parametrize("spec", EXACT)
def test_duplicates_are_found_even_if_mirrored(spec):
    method, images = parse(spec, 8), crops(12)
    images[7], images[9] = images[2], images[4, :, ::-1]
    assert duplicates(method, encrypt(method, images, 3)) == [[2, 7], [4, 9]]
    assert duplicates(method, keyed(method, images)) == [[2, 7], [4, 9]]
    assert duplicates(method, keyed(method, images[:6])) == []


@pytest.mark.parametrize("spec", LEGACY)
def test_duplicates_with_one_key_are_found(spec):
    method, images = parse(spec, 8), crops(12)
    images[7] = images[2]
    assert duplicates(method, encrypt(method, images, 3)) == [[2, 7]]


def test_inputs_that_do_not_fit_are_refused():
    images = crops(4)
    method = parse("bs", 8)
    for attempt, message in (
        (lambda: identify(parse("neuracrypt", 8), images, images), "order of its own"),
        (lambda: identify(method, images[:, :16], images), "differ in size"),
        (lambda: identify(parse("color-neuracrypt", 8), images[:, :16], images), "differ in size"),
        (lambda: identify(parse("neuracrypt:reorder=False", 8), images, np.zeros((2, 4, 5))), "differ in size"),
        (lambda: identify(method, iter(()), images), "no candidates"),
        (lambda: identify(method, images, images[:0]), "at least one"),
        (lambda: identify(parse("bs", 5), images, images), "does not divide"),
        (lambda: duplicates(parse("color-neuracrypt", 8), images), "encodes"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            attempt()
        assert "\n" not in str(caught.value)
