"""Measurements in separate processes."""

from pathlib import Path

import pytest

from benchmarks import loading, one_step
from benchmarks.settings import Settings
from ppvit_jax import checkpoint
from ppvit_jax.errors import UserError

SETTINGS = Settings((), (), (), 16, 2, False, "cpu", "", "", Path())


@pytest.mark.slow
def test_a_step_that_fails_says_why_and_does_no_harm():
    found = one_step.measure(SETTINGS, "jax", "ViT-Micro/7", "float32", 2)
    assert found.keys() == {"failed"} and "not a multiple of the patch size 7" in found["failed"]


def test_a_pretrained_checkpoint_has_what_published_ones_have(tmp_path):
    path = tmp_path / "checkpoint.npz"
    loading.write_pretrained(path, "ViT-Micro/8", 16)
    arrays, metadata = checkpoint.read(path)
    assert arrays["head/kernel"].shape == (128, 21_843) and arrays["pre_logits/kernel"].shape == (128, 128)
    assert metadata.model == "ViT-Micro/8"


@pytest.mark.slow
def test_a_run_that_does_not_start_says_why(tmp_path):
    fields = {"checkpoint": "nowhere.npz", "model": "ViT-Micro/8", "image_size": 16, "batch_size": 2}
    with pytest.raises(UserError, match=r"does not start: .*cannot read the checkpoint"):
        loading.start(fields, tmp_path / "run", tmp_path / "cache", "cpu")
