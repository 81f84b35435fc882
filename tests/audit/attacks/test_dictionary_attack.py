import dataclasses

import numpy as np
import pytest
from helpers.photographs import crops, image_inputs

from ppvit_jax.audit.attacks.dictionary import ATTACK


@pytest.fixture(scope="module")
def images():
    return crops(12, 48)


def test_equal_candidates_are_equal_answers(images):
    inputs = image_inputs("bs+ps", images)
    doubled = ATTACK.run(dataclasses.replace(inputs, plain=np.concatenate([images, images])))
    assert doubled.rows[0]["identified"] == 1 and doubled.rows[0]["candidates"] == 24
    wrong = ATTACK.run(dataclasses.replace(inputs, plain=np.roll(images, 1, axis=0)))
    assert not wrong.succeeded and "visibly equal" not in wrong.summary


def test_equal_encrypted_images_are_counted(images):
    inputs = image_inputs("bs+ps", images[[0, 1, 0, 2]])
    assert "; 2 encrypted images visibly equal another one" in ATTACK.run(inputs).summary
    assert "visibly equal" not in ATTACK.run(dataclasses.replace(inputs, brief=True)).summary
