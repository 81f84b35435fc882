import dataclasses

import numpy as np
import pytest
from helpers.marks import mark_slow
from helpers.photographs import crops
from helpers.tiny import random_params, tiny_model

from ppvit_jax.audit import attacks, report
from ppvit_jax.audit.attack import Counts, Finding
from ppvit_jax.audit.methods import Comparison, Material, Models, Record, compare, try_attacks
from ppvit_jax.encryption import parse

SIZE, BLOCK = 48, 8
COUNTS = Counts(pairs=(1, 2), images=(4,))


@pytest.fixture(scope="module")
def images():
    return crops(12, SIZE)


def _try(method, material, names=None):
    chosen = [attack for attack in attacks.ATTACKS if names is None or attack.name in names]
    return try_attacks(method, material, chosen, seed=0, number=0)


def _timeless(finding):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in finding.rows]


@pytest.mark.parametrize(
    "spec", mark_slow(["bs+ps", "np", "pe", "color-neuracrypt", "neuracrypt:width=96"], but=["np", "pe"])
)
def test_a_method_meets_every_attack(spec, images, tmp_path):
    base = random_params(tiny_model(image_size=32))
    material = Material(images, None, COUNTS, models=Models(base, base, 4, 32))
    method = parse(spec, BLOCK)
    findings, refused = _try(method, material)
    assert {finding.attack for finding in findings} | set(refused) == {attack.name for attack in attacks.ATTACKS}
    assert not {finding.attack for finding in findings} & set(refused)
    assert ("weights" in refused) == (spec not in ("bs+ps", "np"))
    assert ("ciphertext-only" in refused) == ("neuracrypt" in spec)
    assert ("known-plaintext" not in refused) and ("dictionary" in refused) == spec.startswith("neuracrypt")
    again, _ = _try(method, material, ["dictionary", "known-plaintext"])
    before = {finding.attack: finding for finding in findings}
    for finding in again:
        assert _timeless(finding) == _timeless(before[finding.attack])
    records = [Record(spec, 0, finding.attack, finding.succeeded, row) for finding in findings for row in finding.rows]
    comparison = Comparison([spec], records, {(spec, name): why for name, why in refused.items()}, [])
    report.write_matrix(comparison, "a test", tmp_path)
    text = (tmp_path / "matrix.md").read_text()
    assert f"| `{spec}` |" in text and report.CAVEAT in text
    for reason in refused.values():
        assert reason in text


@pytest.mark.slow
def test_only_attacks_that_the_material_allows_are_tried(images):
    methods = [parse(spec, BLOCK) for spec in ("bs", "np")]
    on_images = compare(methods, Material(images, None, COUNTS), attacks.ATTACKS, keys=2, seed=0)
    assert {record.attack for record in on_images.records} == {"known-plaintext", "dictionary", "ciphertext-only"}
    repetitions = {(record.method, record.repetition) for record in on_images.records}
    assert repetitions == {(spec, number) for spec in ("bs", "np") for number in (0, 1)}
    # There is one picture for every method and attack, for the first key only.
    assert len(on_images.pictures) == 4 and on_images.refused == {}
    base = random_params(tiny_model(image_size=32))
    material = Material(None, None, COUNTS, models=Models(base, base, 4, 32))
    on_models = compare([*methods, parse("pe", BLOCK)], material, attacks.ATTACKS, keys=1, seed=0)
    assert {record.attack for record in on_models.records} == {"weights", "position-embedding", "link"}
    assert set(on_models.refused) == {("pe", "weights"), ("pe", "position-embedding"), ("pe", "link")}


def test_every_key_encrypts_the_same_draws_of_images(images):
    seen = {}

    def run(inputs):
        assert inputs.plain is not None and inputs.encrypted is not None
        seen[len(seen)] = inputs.plain, inputs.encrypted.images
        return Finding("dictionary", [{"candidates": 1}], "", None, 0.0)

    attack = dataclasses.replace(attacks.named("dictionary"), run=run)
    comparison = compare([parse("bs+ps", BLOCK)], Material(images, None, COUNTS), [attack], keys=2, seed=0, draws=3)
    order = [(record.draw, record.repetition) for record in comparison.records]
    assert order == [(draw, key) for draw in range(3) for key in range(2)]
    for draw in range(3):
        (first, encrypted), (second, encrypted_again) = seen[2 * draw], seen[2 * draw + 1]
        assert (first == second).all() and (encrypted != encrypted_again).any()
    assert (seen[0][0] != seen[2][0]).any() and (seen[2][0] != seen[4][0]).any()
    # Without draws, a key has the images that it had before there were any.
    seen.clear()
    plain = compare([parse("bs+ps", BLOCK)], Material(images, None, COUNTS), [attack], keys=2, seed=0)
    assert [record.draw for record in plain.records] == [None, None]
    for number in range(2):
        expected = images[np.random.default_rng([0, number]).permutation(len(images))]
        np.testing.assert_array_equal(seen[number][0], expected)


def test_noise_comes_before_the_encryption(images):
    """Known pairs include the owner's noise; ciphertext-only attacks are scored against images without it."""
    material = Material(images, None, Counts(pairs=(2,), images=(6,)), noise=25.0)
    (noisy,), _ = _try(parse("bs", BLOCK), material, ["ciphertext-only"])
    clean = dataclasses.replace(material, noise=0.0)
    (expected,), _ = _try(parse("bs", BLOCK), clean, ["ciphertext-only"])
    assert expected.rows[0]["PSNR"] == np.inf and 15 < float(noisy.rows[0]["PSNR"]) < 30
    (pairs,), _ = _try(parse("bs", BLOCK), material, ["known-plaintext"])
    assert pairs.rows[-1]["other images exact"] == 1
