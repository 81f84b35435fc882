import dataclasses

import pytest
from helpers.photographs import crops, image_inputs

from ppvit_jax.audit.attack import Counts, EncryptedImages
from ppvit_jax.audit.attacks.ciphertext_only import ATTACK
from ppvit_jax.audit.scoring import measure_likeness


@pytest.fixture(scope="module")
def images():
    return crops(12, 48)


def test_ciphertexts_are_scored_only_with_the_truth(images):
    inputs = image_inputs("bs", images, counts=Counts(images=(3, 99)))
    assert inputs.encrypted is not None
    unscored = EncryptedImages(inputs.encrypted.images, inputs.encrypted.method)
    blind = ATTACK.run(dataclasses.replace(inputs, encrypted=unscored, plain=None))
    assert blind.succeeded is None and set(blind.rows[0]) == {"images", "seconds"}
    scored = ATTACK.run(inputs)
    assert len(scored.rows) == 1 and scored.succeeded and scored.rows[0]["blocks in place"] == 1
    likeness = measure_likeness(images[:3], 8)
    assert inputs.plain is not None and (inputs.plain == images).all() and likeness.neighbors != likeness.channels
    assert scored.rows[0]["neighbors alike"] == likeness.neighbors
    assert scored.rows[0]["channels alike"] == likeness.channels


def test_images_with_keys_of_their_own_are_attacked_one_by_one(images):
    finding = ATTACK.run(image_inputs("pe:keys=per_image", images, counts=Counts(images=(2,))))
    assert float(finding.rows[0]["SSIM"]) > float(finding.rows[0]["SSIM encrypted"])
