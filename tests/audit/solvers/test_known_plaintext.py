"""The known-plaintext attack decrypts images that it has not seen, and reports what the pairs leave ambiguous."""

import numpy as np
import pytest
from helpers import photographs
from helpers.photographs import crops
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax.audit.solvers.known_plaintext import pairs_needed, solve
from ppvit_jax.encryption import parse
from ppvit_jax.errors import UserError

# Number of natural images (32x32, blocks of 8) that suffice to tell nearly all places apart.
SPECS = {
    "bs": 2,
    "ps": 12,
    "bs+ps": 12,
    "restricted": 12,
    "restricted:fixed_blocks=0,fixed_pixels=0": 12,
    "np": 1,
    "bs+ps+np": 12,
    "bs+ps+np:shared=False": 40,
    "bs+pps": 4,
    "bs+pps:shared=blocks": 4,
    "bs+pps:shared=none": 40,
    "bs+pps:sub_block=whole": 4,
    "bs+pps:sub_block=whole,shared=blocks": 4,
    "bs+pps:sub_block=whole,shared=none": 40,
    "etc": 8,
    "etc:shared=True": 4,
    "etc:sub_block_size=4": 12,
    "etc:sub_block_size=4,shared=True": 4,
    "etc:sub_block_size=1,shared=True": 12,
    "etc:rotation=False": 8,
    "etc:negative_positive=False": 8,
    "etc:channels=none": 8,
    "etc:rotation=False,negative_positive=False,channels=none": 2,
    "pe": 20,
    "pe:colour=False": 1,
    "le": 20,
    "le:np_key=independent": 20,
    "ele": 150,
}


def encrypt(spec, images, key, block_size=8):
    method = parse(spec, block_size)
    return method, *photographs.encrypt(method, images, key)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("key", [1, 2])
def test_pairs_decrypt_other_images(spec, key):
    count = SPECS[spec]
    images = crops(count + 10, seed=key)
    method, encrypted, secret = encrypt(spec, images, key)
    solution = solve(method, images[:count], encrypted[:count])
    back = method.decrypt(encrypted, solution.secret)
    np.testing.assert_array_equal(back[:count], images[:count])
    wrong = solution.secret["index"] != secret["index"]
    if "mask" in secret:
        wrong |= solution.secret["mask"] != secret["mask"]
    assert sorted(solution.secret["index"]) == list(range(solution.places))
    assert solution.places == len(secret["index"])
    assert wrong.sum() <= solution.ambiguous_places <= 0.02 * solution.places
    assert (back[count:] != images[count:]).mean() <= 0.02


@pytest.mark.parametrize("key", [1, 2, 3, 4, 5])
def test_one_photograph_tells_the_key_of_the_proposed_method(key):
    images = crops(3, 224, seed=key)
    method, encrypted, secret = encrypt("bs+ps", images, key, 16)
    solution = solve(method, images[:1], encrypted[:1])
    np.testing.assert_array_equal(solution.secret["index"], secret["index"])
    assert (solution.blocks, solution.ambiguous_blocks, solution.ambiguous_places) == (196, 0, 0)
    assert pairs_needed(method, images, encrypted) == 1


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(sorted(SPECS)), st.integers(1, 255), st.integers(1, 4), st.integers(0, 9), st.integers(1, 4))
def test_any_images_give_a_bijection_that_is_wrong_only_where_it_is_ambiguous(spec, key, count, seed, levels):
    """The images have few distinct values, so that nearly everything is a tie."""
    random = np.random.default_rng(seed)
    images = random.choice(random.integers(0, 256, levels).astype(np.uint8), (count, 16, 16, 3))
    method, encrypted, secret = encrypt(spec, images, key, 4)
    solution = solve(method, images, encrypted)
    np.testing.assert_array_equal(method.decrypt(encrypted, solution.secret), images)
    assert sorted(solution.secret["index"]) == list(range(len(secret["index"])))
    wrong = solution.secret["index"] != secret["index"]
    if "mask" in secret:
        wrong |= solution.secret["mask"] != secret["mask"]
    assert wrong.sum() <= solution.ambiguous_places


def test_flat_blocks_are_reported_and_a_second_image_resolves_them():
    images = crops(4, seed=1)
    images[0, :8, :24] = 90
    method, encrypted, _ = encrypt("bs+ps", images, 7)
    solution = solve(method, images[:1], encrypted[:1])
    assert solution.ambiguous_blocks == 3
    assert solve(method, images[:3], encrypted[:3]).ambiguous_blocks == 0


def test_blocks_with_the_same_contents_are_told_apart_by_where_the_values_lie():
    images = crops(2, seed=3)
    # Mirrored blocks have equal histograms. Only the places of values, known from other blocks, separate them.
    images[0, :8, 8:16] = images[0, :8, 7::-1]
    method, encrypted, _ = encrypt("bs+ps", images, 8)
    solution = solve(method, images[:1], encrypted[:1])
    assert solution.ambiguous_blocks == 0


def test_restricted_permutations_prefer_blocks_that_stay():
    flat = np.full((1, 32, 32, 3), 9, np.uint8)
    for spec, stay in (("restricted:fixed_blocks=6,fixed_pixels=192", 6), ("restricted:fixed_blocks=16", 16)):
        method, encrypted, _ = encrypt(spec, flat, 1)
        index = solve(method, flat, encrypted).secret["index"].reshape(4, 8, 4, 24)
        blocks = (index == np.arange(32 * 32 * 3).reshape(4, 8, 4, 24)).any(axis=(1, 3)).sum()
        assert blocks >= stay


@pytest.mark.parametrize(
    "spec", ["etc:channels=published", "etc:channels=in_place", "etc:channels=in_place,shared=True,sub_block_size=4"]
)
def test_channels_assigned_in_place_are_found_but_not_undone(spec):
    images = crops(30, seed=2)
    method, encrypted, _ = encrypt(spec, images, 4)
    solution = solve(method, images[:20], encrypted[:20])
    assert (method.encrypt(images[20:], solution.secret) == encrypted[20:]).mean() > 0.98
    with pytest.raises(UserError, match="cannot be undone"):
        method.decrypt(encrypted, solution.secret)


def test_the_number_of_pairs_needed_is_the_least():
    images = crops(20, seed=5)
    method, encrypted, _ = encrypt("pe", images, 6)
    count = pairs_needed(method, images, encrypted)
    assert count is not None and 1 < count < 19
    fewer = solve(method, images[: count - 1], encrypted[: count - 1]).secret
    assert (method.decrypt(encrypted, fewer) != images).any()
    enough = solve(method, images[:count], encrypted[:count]).secret
    np.testing.assert_array_equal(method.decrypt(encrypted, enough), images)
    assert pairs_needed(method, images, encrypted, limit=count - 1) is None
    with pytest.raises(UserError, match="at least two"):
        pairs_needed(method, images[:1], encrypted[:1])


@pytest.mark.parametrize("spec", SPECS)
def test_pairs_that_do_not_belong_together_are_refused(spec):
    images = crops(4, seed=9)
    method, encrypted, _ = encrypt(spec, images, 3)
    encrypted[0, 5, 5] ^= 1
    with pytest.raises(UserError, match="not images and their encryptions"):
        solve(method, images, encrypted)


def test_methods_and_pairs_that_cannot_be_attacked_are_refused():
    images = crops(2)
    for spec, message in (("pe:keys=per_image", "nothing about other images"), ("color-neuracrypt", "learn a decoder")):
        with pytest.raises(UserError, match=message) as caught:
            solve(parse(spec, 8), images, images)
        assert "\n" not in str(caught.value)
    method = parse("bs", 8)
    for plain, encrypted in ((images, images[:1]), (images[:0], images[:0]), (images[0], images[0])):
        with pytest.raises(UserError, match="at least one"):
            solve(method, plain, encrypted)
    with pytest.raises(UserError, match="uint8"):
        solve(method, images.astype(np.float32), images)
    with pytest.raises(UserError, match="does not divide"):
        solve(parse("bs", 5), images, images)
