"""Recovery of keys from adapted models. The solver sees the base and the model; only the assertions see keys."""

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.blocks import KEYS
from helpers.tiny import flatten, random_images, random_params, tiny_model
from helpers.transformers import tiny_transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax import checkpoint, models
from ppvit_jax.adaptation import adapt, fold_normalization, restore
from ppvit_jax.audit.solvers.weights import drift, match_rows, recover
from ppvit_jax.encryption import Permutations, parse
from ppvit_jax.encryption.blockwise import make_secret
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

ABSORBED = (
    "bs",
    "ps",
    "bs+ps",
    "restricted:fixed_blocks=20,fixed_pixels=90",
    "np",
    "bs+ps+np",
    "bs+pps",
    "bs+pps:sub_block=whole,shared=blocks",
    "etc:shared=True",
    "etc:rotation=False,negative_positive=False,channels=none",
)


TRANSFORMERS = tiny_transformers(image_sizes=4, hidden_size=64)
STANDARD = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def base():
    """Returns the trained checkpoint in the package (64x64 pixels, blocks of 8)."""
    return _tree(checkpoint.read(checkpoint.resolve("embedded"))[0])


def _tree(arrays):
    return {
        "embedding": {"kernel": arrays["embedding/kernel"], "bias": arrays["embedding/bias"]},
        "Transformer": {"posembed_input": {"pos_embedding": arrays["Transformer/posembed_input/pos_embedding"]}},
    }


def _change(params, strength, seed):
    """Adds Gaussian noise to both tensors, relative to the standard deviation between their rows."""
    random = np.random.default_rng(seed)
    kernel, positions = params["embedding"]["kernel"], params["Transformer"]["posembed_input"]["pos_embedding"]

    def add(array):
        return (array + strength * array.std(axis=-2).mean() * random.standard_normal(array.shape)).astype(np.float32)

    changed = {"embedding": {**params["embedding"], "kernel": add(kernel)}}
    return changed | {"Transformer": {"posembed_input": {"pos_embedding": add(positions)}}}


def _whole(permutations, blocks, values):
    """Returns all three parts, with the identity for parts that the encryption does not use."""
    parts = permutations.block, permutations.pixel, permutations.negative
    identities = np.arange(blocks), np.arange(values), np.zeros(values, bool)
    return [identity if part is None else part for part, identity in zip(parts, identities, strict=True)]


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(key=KEYS, spec=st.sampled_from(ABSORBED), strength=st.sampled_from([0, 0.1, 0.5, 1]))
def test_the_key_of_any_adapted_method_is_recovered_without_its_name(base, key, spec, strength):
    truth = parse(spec, 8).absorb(key, height=64, width=64)
    found = recover(base, _change(adapt(base, truth), strength, seed=1)).permutations
    for actual, expected in zip(_whole(found, 64, 192), _whole(truth, 64, 192), strict=True):
        np.testing.assert_array_equal(actual, expected)
    # The recovered permutations decrypt images.
    method, image = parse(spec, 8), random_images(1, 64)[0]
    encrypted = method.encrypt(image, method.derive(key, height=64, width=64))
    np.testing.assert_array_equal(method.decrypt(encrypted, make_secret(found, 64, 64, 8)), image)


@pytest.mark.parametrize("title", TRANSFORMERS)
def test_the_key_is_read_off_a_model_of_any_family(title):
    """The base is as it is published: normalized by its own mean and standard deviation."""
    config, random = TRANSFORMERS[title], np.random.default_rng(4)
    size = config.image_size
    plain = random_params(config, seed=1)
    truth = parse("bs+ps+np", config.patch_size).absorb(SecretKey(bytes([7] * 32)), height=size, width=size)
    folded = fold_normalization(plain, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), (STANDARD, STANDARD))
    fixed = models.family_of(config).fixed
    tuned = {
        name: array + 0.1 * array.std() * random.standard_normal(array.shape) * (name not in fixed)
        for name, array in flatten(adapt(folded, truth)).items()
    }
    tuned = unflatten_dict(tuned, sep="/")
    found = recover(plain, tuned)
    blocks, values = len(found.block.order), len(found.pixel.order)
    assert (blocks, values) == (16, 3 * config.patch_size**2)
    for actual, expected in zip(_whole(found.permutations, blocks, values), _whole(truth, blocks, values), strict=True):
        np.testing.assert_array_equal(actual, expected)
    changes = drift(folded, tuned, found.permutations)
    assert 0.05 < changes["patch_embedding"] < 0.2
    assert changes["position_embedding"] == 0 if fixed else 0.05 < changes["position_embedding"] < 0.2


def test_certainty_is_reported(base):
    truth = SecretKey(bytes(32)).permutations("bs+ps+np", image_size=64, patch_size=8)
    exact, changed = recover(base, adapt(base, truth)), recover(base, _change(adapt(base, truth), 1, seed=0))
    for match in (exact.block, exact.pixel):
        np.testing.assert_allclose(match.similarity, 1, rtol=0, atol=1e-12)
        assert (match.margin > 0).all()
    assert changed.pixel.similarity.mean() == pytest.approx(2**-0.5, abs=0.1)
    assert changed.block.margin.mean() < exact.block.margin.mean()


def test_a_model_of_another_base_matches_only_by_chance(base):
    random = np.random.default_rng(0)
    units = random.permutation(128)
    # A model with the same structure, but with its hidden units in another order.
    other = {"embedding": {"kernel": base["embedding"]["kernel"][..., units]}}
    positions = base["Transformer"]["posembed_input"]["pos_embedding"][..., units]
    other["Transformer"] = {"posembed_input": {"pos_embedding": positions}}
    found = recover(base, other)
    assert (found.permutations.pixel == np.arange(192)).mean() < 0.05
    assert (found.permutations.block == np.arange(64)).mean() < 0.2
    assert found.pixel.similarity.mean() < 0.5


def test_matching_against_an_independent_oracle():
    """The rows are nearly multiples of unit vectors, so their largest entries show the order."""
    random = np.random.default_rng(3)
    order, signs = random.permutation(40), np.where(random.random(40) < 0.5, -1, 1)
    base = np.eye(40) * random.uniform(0.1, 10, (40, 1))
    model = base[order] * signs[:, None] + 0.01 * random.standard_normal((40, 40))
    match = match_rows(base, model, signed=True, centered=False)
    np.testing.assert_array_equal(match.order, abs(model).argmax(1))
    np.testing.assert_array_equal(match.negative, model[np.arange(40), abs(model).argmax(1)] < 0)
    assert match.order.dtype == np.int32 and match.negative.dtype == bool
    unsigned = match_rows(base, abs(model), centered=False)
    np.testing.assert_array_equal(unsigned.order, order)
    assert not unsigned.negative.any()


def test_two_rows_with_one_best_match_get_different_rows():
    base = np.array([[1.0, 0], [0.6, 0.8]])
    model = np.array([[1.0, 0], [1.0, 0.1]])
    match = match_rows(base, model, centered=False)
    np.testing.assert_array_equal(match.order, [0, 1])
    assert match.margin[0] > 0 > match.margin[1]


def test_drift_is_the_change_since_adaptation(base):
    truth = SecretKey(bytes(32)).permutations("bs+ps+np", image_size=64, patch_size=8)
    assert drift(base, adapt(base, truth), truth) == {"patch_embedding": 0, "position_embedding": 0}
    tuned = adapt(base, truth)
    tuned["embedding"] = {"kernel": tuned["embedding"]["kernel"] * np.float32(1.5), "bias": tuned["embedding"]["bias"]}
    assert drift(base, tuned, truth) == pytest.approx({"patch_embedding": 0.5, "position_embedding": 0})
    assert drift(base, tuned, Permutations())["patch_embedding"] > 1


def test_a_real_size_is_recovered():
    random = np.random.default_rng(0)
    size = tiny_model(image_size=224, patch_size=16)
    params = random_params(size)
    params["embedding"]["kernel"] = random.standard_normal((16, 16, 3, 768)).astype(np.float32)
    params["Transformer"]["posembed_input"]["pos_embedding"] = random.standard_normal((1, 197, 768)).astype(np.float32)
    truth = SecretKey(bytes([5] * 32)).permutations("bs+ps+np", image_size=224, patch_size=16)
    model = _change(adapt(params, truth), 2, seed=9)
    found = recover(params, model).permutations
    np.testing.assert_array_equal(found.block, truth.block)
    np.testing.assert_array_equal(found.pixel, truth.pixel)
    np.testing.assert_array_equal(found.negative, truth.negative)
    np.testing.assert_array_equal(
        restore(adapt(params, truth), found)["embedding"]["kernel"], params["embedding"]["kernel"]
    )


def test_models_that_do_not_fit_are_refused(base):
    one, other = random_params(tiny_model()), random_params(tiny_model(image_size=32))
    with pytest.raises(UserError, match="cannot be matched: give models of the same size"):
        recover(one, other)
    with pytest.raises(UserError, match="cannot be matched: give models of the same size"):
        recover(one, base)
    with pytest.raises(UserError, match="has no Transformer/posembed_input"):
        recover({"embedding": one["embedding"]}, one)
    with pytest.raises(UserError, match="has no embedding"):
        recover({"Transformer": one["Transformer"]}, {"Transformer": one["Transformer"]})
    with pytest.raises(UserError, match="give models of the same size"):
        drift(one, other, Permutations())
    broken = {**one, "embedding": {"kernel": one["embedding"]["kernel"] * np.float32(np.nan)}}
    with pytest.raises(UserError, match="not finite"):
        recover(one, broken)
