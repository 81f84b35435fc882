import dataclasses

import numpy as np
import pytest
from helpers.photographs import crops, encrypt
from helpers.tiny import random_params, tiny_model

from ppvit_jax.adaptation import adapt
from ppvit_jax.audit import evaluation, matrix, report
from ppvit_jax.audit.finding import KNOWLEDGE
from ppvit_jax.encryption import create
from ppvit_jax.keys import SecretKey

SIZE, BLOCK = 48, 8


@pytest.fixture(scope="module")
def images():
    return crops(12, SIZE)


def _encrypted(spec, images, key=1):
    method = create(spec, BLOCK)
    return method, *encrypt(method, images, key)


def test_weights_are_scored_by_the_truth_alone():
    config = tiny_model(image_size=32)
    base = random_params(config)
    key, other = (SecretKey(bytes([n] * 32)) for n in (1, 2))
    truth, wrong = (one.permutations("bs+ps+np", image_size=32, patch_size=4) for one in (key, other))
    model = adapt(base, truth)
    found = evaluation.audit_weights(base, model, truth)
    assert found.succeeded and [row["recovered"] for row in found.rows] == [1, 1]
    assert not evaluation.audit_weights(base, model, wrong).succeeded
    unknown = evaluation.audit_weights(base, model, None)
    assert unknown.succeeded and "recovered" not in unknown.rows[0]
    foreign = random_params(config, seed=5)
    assert not evaluation.audit_weights(foreign, model, truth).succeeded
    assert not evaluation.audit_weights(foreign, model, None).succeeded


def test_models_of_one_base_are_linked_and_others_are_not():
    config = tiny_model(image_size=32)
    base, foreign = random_params(config), random_params(config, seed=9)
    keys = [SecretKey(bytes([n] * 32)).permutations("bs+ps", image_size=32, patch_size=4) for n in (1, 2)]
    assert evaluation.audit_link(adapt(base, keys[0]), adapt(base, keys[1])).succeeded
    assert not evaluation.audit_link(adapt(base, keys[0]), adapt(foreign, keys[1])).succeeded


def test_pairs_decrypt_images_that_were_not_among_them(images):
    method, encrypted, _ = _encrypted("bs+ps", images)
    found = evaluation.audit_known_plaintext(method, images, encrypted)
    assert found.succeeded and found.rows[-1]["other images exact"] == 1 and found.rows[-1]["pairs"] <= 2
    assert set(found.pictures) == {"encrypted", "recovered", "plain"}
    np.testing.assert_array_equal(found.pictures["recovered"], found.pictures["plain"])


def test_the_fewest_pairs_that_suffice_are_told(images):
    method, encrypted, _ = _encrypted("pe", images)
    found = evaluation.audit_known_plaintext(method, images, encrypted, counts=(1, 6))
    fewest = int(found.summary.rpartition(" are ")[2])
    assert found.rows[-1]["pairs"] == 6 and 1 < fewest <= 6
    short = evaluation.audit_known_plaintext(method, images[:fewest], encrypted[:fewest], counts=(fewest - 1,))
    assert short.rows[0]["pairs"] == fewest - 1 and short.rows[0]["other images exact"] < 1


def test_ciphertexts_alone_with_and_without_the_truth(images):
    method, encrypted, secret = _encrypted("bs", images)
    blind = evaluation.audit_ciphertext_only(method, encrypted, [3])
    assert blind.succeeded is None and set(blind.rows[0]) == {"images", "seconds"}
    seen = evaluation.audit_ciphertext_only(method, encrypted, [3, 99], plain=images, truth=secret)
    assert len(seen.rows) == 1 and seen.succeeded and seen.rows[0]["blocks in place"] == 1
    alone, encrypted, _ = _encrypted("pe:keys=per_image", images)
    found = evaluation.audit_ciphertext_only(alone, encrypted, [2], plain=images)
    assert found.rows[0]["SSIM"] > found.rows[0]["SSIM encrypted"]


def test_equal_candidates_are_equal_answers(images):
    method, encrypted, _ = _encrypted("bs+ps", images)
    doubled = np.concatenate([images, images])
    found = evaluation.audit_dictionary(method, doubled, encrypted, np.arange(12) + 12)
    assert found.rows[0]["identified"] == 1
    wrong = evaluation.audit_dictionary(method, images, encrypted, (np.arange(12) + 1) % 12)
    assert not wrong.succeeded and "seen to be equal" not in wrong.summary
    repeated = images[[0, 1, 0, 2]]
    twice = evaluation.audit_dictionary(method, repeated, _encrypted("bs+ps", repeated)[1], np.arange(4))
    assert "; 2 encrypted images are seen to be equal" in twice.summary


@pytest.mark.parametrize("spec", ["bs+ps", "np", "pe", "color-neuracrypt", "neuracrypt:width=96"])
def test_a_method_meets_every_attack(spec, images, tmp_path):
    config = tiny_model(image_size=32)
    base = random_params(config)
    material = matrix.Material(images, None, (1, 2), (4,), models=matrix.Models(base, base, 4, 32))
    method = create(spec, BLOCK)
    findings, refused = matrix.attack(method, material, 0, 0, list(KNOWLEDGE))
    assert {finding.attack for finding in findings} | set(refused) == set(KNOWLEDGE)
    assert not {finding.attack for finding in findings} & set(refused)
    assert ("weights" in refused) == (spec not in ("bs+ps", "np"))
    assert ("ciphertext-only" in refused) == ("neuracrypt" in spec)
    assert ("known-plaintext" not in refused) and ("dictionary" in refused) == spec.startswith("neuracrypt")
    again, _ = matrix.attack(method, material, 0, 0, ["dictionary", "known-plaintext"])
    before = {finding.attack: finding.rows for finding in findings}
    for finding in again:
        timeless = [{k: v for k, v in row.items() if k != "seconds"} for row in finding.rows]
        assert timeless == [{k: v for k, v in row.items() if k != "seconds"} for row in before[finding.attack]]
    rows = matrix.records(spec, 0, findings)
    report.write_matrix([spec], rows, {(spec, name): why for name, why in refused.items()}, [], "a test", tmp_path)
    text = (tmp_path / "matrix.md").read_text()
    assert f"| `{spec}` |" in text and report.CAVEAT in text
    for reason in refused.values():
        assert reason in text


def test_noise_comes_before_the_encryption(images):
    """The owner's noise is in what pairs decrypt to, and the scoring of ciphertexts compares with images without it."""
    material = matrix.Material(images, None, (2,), (6,), noise=25.0)
    (found,), _ = matrix.attack(create("bs", BLOCK), material, 0, 0, ["ciphertext-only"])
    clean = dataclasses.replace(material, noise=0.0)
    (expected,), _ = matrix.attack(create("bs", BLOCK), clean, 0, 0, ["ciphertext-only"])
    assert expected.rows[0]["PSNR"] == np.inf and 15 < found.rows[0]["PSNR"] < 30
    (pairs,), _ = matrix.attack(create("bs", BLOCK), material, 0, 0, ["known-plaintext"])
    assert pairs.rows[-1]["other images exact"] == 1


def test_median_and_range():
    assert matrix.spread([0.25, 1.0, 0.5]) == "0.500 (0.250 to 1)"
    assert matrix.spread([1.0, 1.0]) == "1"
    assert matrix.spread([]) == ""
    rows = [
        {"method": "bs", "repetition": n, "attack": "dictionary", "succeeded": True, "candidates": 5, "identified": v}
        for n, v in enumerate((0.2, 0.4, 0.9))
    ]
    assert "| `bs` | 5 | 3 | 0.400 (0.200 to 0.900) |" in matrix.summarise(rows)
    assert "| `bs` | 0.400 (0.200 to 0.900) |" in matrix.tabulate(["bs"], rows, {})
