"""Link attack on models with different keys, adapted from one base or from different bases."""

import re

import numpy as np
import pytest
from helpers.blocks import KEYS
from helpers.marks import mark_slow
from helpers.tiny import assert_same_tree, random_params, tiny_model
from helpers.transformers import tiny_transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax import checkpoint
from ppvit_jax.adaptation import adapt
from ppvit_jax.audit.solvers.link import compare
from ppvit_jax.encryption import parse
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

SPECS = ("bs", "ps", "bs+ps", "np", "bs+ps+np", "bs+pps", "etc:shared=True")


def _embedded():
    """Returns the trained checkpoint in the package (64x64 pixels, blocks of 8) as a tree, with two encoder blocks."""
    params = {}
    for name, array in checkpoint.read(checkpoint.resolve("embedded"))[0].items():
        *path, last = name.split("/")
        if re.search(r"encoderblock_[2-9]", name):
            continue
        branch = params
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = array
    return params


BASE = _embedded()


def _changed(tree, strength, seed):
    """Adds noise to every tensor: `strength` times its standard deviation."""
    random = np.random.default_rng(seed)

    def change(branch):
        if isinstance(branch, dict):
            return {name: change(part) for name, part in branch.items()}
        return (branch + strength * branch.std() * random.standard_normal(branch.shape)).astype(np.float32)

    return change(tree)


def _keyed(spec, key):
    permutations = parse(spec, 8).absorb(key, height=64, width=64)
    return permutations, adapt(BASE, permutations)


def _rearranged(tree, units):
    """Reorders the hidden units: the model computes the same function, but its weights look like another base."""

    def move(branch):
        if isinstance(branch, dict):
            return {name: move(part) for name, part in branch.items()}
        for axis, length in enumerate(branch.shape):
            if length == len(units):
                branch = np.take(branch, units, axis)
        return branch

    return move(tree)


def _statistics(link):
    """Returns the statistics of the encoder, the patch embedding and the position embedding."""
    found = [statistic for statistic in (link.untouched, link.patch, link.position) if statistic]
    assert len(found) == 3
    return found


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(keys=st.tuples(KEYS, KEYS), specs=st.tuples(st.sampled_from(SPECS), st.sampled_from(SPECS)))
def test_two_keys_of_one_base_are_linked_and_one_key_reveals_the_other(keys, specs):
    first, second = (_keyed(*pair)[1] for pair in zip(specs, keys, strict=True))
    link = compare(_changed(first, 0.3, 1), _changed(second, 0.3, 2), draws=10)
    assert link.linked and all(statistic.linked for statistic in _statistics(link))
    assert all(name in link.reason for name in ("encoder's kernels", "patch embedding", "position embedding"))
    # Noise of 0.3 in both models gives tensors without a mean a cosine of 1 / (1 + 0.3**2).
    assert _statistics(link)[0].value == pytest.approx(1 / 1.09, abs=0.02)
    assert_same_tree(adapt(first, link.relative), second)


@pytest.mark.parametrize("seed", mark_slow(range(8), but=[0]))
def test_a_model_of_the_same_structure_and_another_base_is_not_linked(seed):
    """Both models have smooth position embeddings and smooth filters."""
    random = np.random.default_rng(seed)
    _, first = _keyed("bs+ps", SecretKey(bytes([seed] * 32)))
    _, second = _keyed("bs+ps+np", SecretKey(bytes([99] * 32)))
    link = compare(first, _rearranged(second, random.permutation(128)), seed=seed, draws=20)
    assert not link.linked and link.reason == "no more alike than by chance"
    assert (link.relative.block, link.relative.pixel, link.relative.negative) == (None, None, None)
    for statistic in _statistics(link):
        assert abs(statistic.z) < 6


def test_a_position_embedding_of_few_dimensions_is_not_linked():
    """Both models combine sines and cosines of the same frequencies, each on its own hidden units."""
    rows, columns = np.divmod(np.arange(64), 8)
    waves = [f(np.pi * k * axis / 8) for f in (np.sin, np.cos) for k in (1, 2, 3) for axis in (rows, columns)]
    models = []
    for seed in (1, 2):
        random = np.random.default_rng(seed)
        params = random_params(tiny_model(image_size=64, patch_size=8), seed=seed)
        params["Transformer"]["posembed_input"]["pos_embedding"] = np.concatenate(
            [np.zeros((1, 16)), np.stack(waves, 1) @ random.standard_normal((12, 16))]
        )[None]
        models.append(params)
    link = compare(*models)
    assert not link.linked
    # The value must be compared with chance, not with 0.
    position = _statistics(link)[2]
    assert position.value > 0.3 and position.chance > 0.3


@pytest.mark.slow
def test_the_exact_null_is_that_of_permuted_hidden_units():
    statistic = _statistics(compare(BASE, BASE, draws=2))[0]
    assert statistic.value == pytest.approx(1, abs=1e-6)
    random = np.random.default_rng(0)
    values = []
    for _ in range(60):
        other = _rearranged(BASE, random.permutation(128))
        values.append(_statistics(compare(BASE, other, draws=2))[0].value)
    assert np.mean(values) == pytest.approx(statistic.chance, abs=4 * statistic.deviation / 60**0.5)
    assert np.std(values) == pytest.approx(statistic.deviation, rel=0.4)


def test_models_of_different_sizes_are_compared_where_possible():
    one = random_params(tiny_model())
    link = compare(one, BASE)
    assert not link.linked and link.reason == "the hidden sizes 16 and 128 differ"
    # With another image size, the patch embedding and the encoder can still be compared.
    larger = {**one, "Transformer": {**one["Transformer"]}}
    larger["Transformer"]["posembed_input"] = random_params(tiny_model(image_size=32))["Transformer"]["posembed_input"]
    link = compare(one, larger, draws=20)
    assert link.linked and link.position is None and link.relative.block is None
    np.testing.assert_array_equal(link.relative.pixel, np.arange(48))
    with pytest.raises(UserError, match="at least 2"):
        compare(one, one, draws=1)
    with pytest.raises(UserError, match="has no embedding"):
        compare(one, {"Transformer": one["Transformer"]})


@pytest.mark.slow
def test_the_same_seed_gives_the_same_answer():
    _, second = _keyed("bs+ps", SecretKey(bytes(32)))
    answers = [compare(BASE, second, seed=seed, draws=5) for seed in (0, 0, 1)]
    assert answers[0].patch == answers[1].patch != answers[2].patch


@pytest.mark.slow
@pytest.mark.parametrize("title", ["DeiT-S/8-distilled", "DINOv2-g/7-registers as in timm", "SigLIP-B/8", "CLIP-B/8"])
def test_models_of_any_family_are_linked_by_their_base_alone(title):
    config = tiny_transformers(image_sizes=4, hidden_size=64)[title]
    size = config.image_size
    permutations = [
        parse("bs+ps", config.patch_size).absorb(SecretKey(bytes([seed] * 32)), height=size, width=size)
        for seed in range(3)
    ]
    first, second, other = (
        adapt(random_params(config, seed=seed), each) for seed, each in zip((1, 1, 2), permutations, strict=True)
    )
    link = compare(first, second, draws=5)
    assert link.linked and all(statistic.linked for statistic in _statistics(link))
    assert_same_tree(adapt(first, link.relative), second)
    assert not compare(first, other, draws=5).linked


def test_a_public_table_of_angles_links_no_models_and_shows_the_blocks():
    config = tiny_transformers(image_sizes=4, hidden_size=64)["DINOv3-S/8"]
    keys = [SecretKey(bytes([seed] * 32)) for seed in range(2)]
    permutations = [parse("bs", 8).absorb(key, height=32, width=32) for key in keys]
    bases = [random_params(config, seed=seed) for seed in range(2)]
    bases[1]["Transformer"]["rotary"] = bases[0]["Transformer"]["rotary"]
    first, second = (adapt(base, each) for base, each in zip(bases, permutations, strict=True))
    link = compare(first, second, draws=5)
    assert not link.linked and link.position is None
    assert_same_tree(adapt(first, link.relative)["Transformer"]["rotary"], second["Transformer"]["rotary"])
