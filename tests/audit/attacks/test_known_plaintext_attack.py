import dataclasses

import numpy as np
import pytest
from helpers.photographs import crops, image_inputs

from ppvit_jax.audit.attack import Counts, Inputs
from ppvit_jax.audit.attacks.known_plaintext import ATTACK
from ppvit_jax.errors import UserError


@pytest.fixture(scope="module")
def images():
    return crops(12, 48)


def test_pairs_decrypt_images_that_were_not_among_them(images):
    finding = ATTACK.run(image_inputs("bs+ps", images))
    assert finding.succeeded and finding.rows[-1]["other images exact"] == 1 and float(finding.rows[-1]["pairs"]) <= 2
    assert set(finding.pictures) == {"encrypted", "recovered", "plain"}
    np.testing.assert_array_equal(finding.pictures["recovered"], finding.pictures["plain"])


def test_the_fewest_pairs_that_suffice_are_reported(images):
    inputs = image_inputs("pe", images, counts=Counts(pairs=(1, 6)))
    finding = ATTACK.run(inputs)
    fewest = int(finding.summary.rpartition(": ")[2])
    assert finding.rows[-1]["pairs"] == 6 and 1 < fewest <= 6
    assert "pairs needed" not in ATTACK.run(dataclasses.replace(inputs, brief=True)).summary
    short = ATTACK.run(image_inputs("pe", images[:fewest], counts=Counts(pairs=(fewest - 1,))))
    assert short.rows[0]["pairs"] == fewest - 1 and float(short.rows[0]["other images exact"]) < 1


def test_pairs_hold_the_noise_that_came_before_the_encryption(images):
    inputs = image_inputs("bs", images)
    swapped = Inputs(encrypted=inputs.encrypted, plain=images[::-1], noisy=images)
    assert ATTACK.run(swapped).rows[-1]["other images exact"] == 1


def test_one_pair_is_too_few(images):
    with pytest.raises(UserError, match="leaves none to test the attack on"):
        ATTACK.run(image_inputs("bs", images[:1]))
