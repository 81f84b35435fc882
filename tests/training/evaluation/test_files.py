"""Files of an evaluation can be read again, and damaged ones are named."""

import json

import numpy as np
import pytest
from PIL import Image

from ppvit_jax.errors import UserError
from ppvit_jax.training.evaluation.files import Origin, read_evaluation, write_evaluation
from ppvit_jax.training.evaluation.measures import make_measures

NAMES = ("cat", 'dog, "big" $x_', "caf\udce9")
ORIGIN = Origin(checkpoint="checkpoint.npz", images="pets", split="test", encryption="none", key_fingerprint=None)


def _measured(task="single_label"):
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 20).astype(np.int32)
    measures = make_measures(task, 3)
    measures.add(
        random.normal(0, 1, (20, 3)).astype(np.float32), labels if task == "single_label" else np.eye(3)[labels]
    )
    return measures.compute()


def _read(folder):
    evaluation = read_evaluation(folder)
    assert evaluation is not None
    return evaluation


@pytest.mark.slow
def test_an_evaluation_is_read_as_it_was_written(tmp_path):
    measured = _measured()
    assert write_evaluation(tmp_path, measured, NAMES, ORIGIN) == ["evaluation.json", "confusion.csv", "confusion.png"]
    content, confusion = _read(tmp_path)
    np.testing.assert_array_equal(confusion, measured.confusion)
    assert content["metrics"] == measured.values
    assert tuple(row["name"] for row in content["classes"]) == NAMES
    assert content["origin"] == ORIGIN
    assert (content["version"], content["task"], content["examples"]) == (1, "single_label", 20)
    with Image.open(tmp_path / "confusion.png") as picture:
        assert min(picture.size) > 300


def test_several_labels_have_no_confusion_matrix(tmp_path):
    assert write_evaluation(tmp_path, _measured("multi_label"), NAMES, ORIGIN) == ["evaluation.json"]
    content, confusion = _read(tmp_path)
    assert confusion is None and content["confusion"] is None
    assert content["classes"][0].keys() == {"name", "examples", "predicted", "average_precision"}


def test_without_matplotlib_there_is_no_picture(tmp_path, monkeypatch):
    monkeypatch.setattr("ppvit_jax.training.evaluation.files.is_installed", lambda module: False)
    assert write_evaluation(tmp_path, _measured(), NAMES, ORIGIN) == ["evaluation.json", "confusion.csv"]
    assert not (tmp_path / "confusion.png").exists()


@pytest.mark.slow
def test_damaged_files_are_named(tmp_path):
    assert read_evaluation(tmp_path) is None
    write_evaluation(tmp_path, _measured(), NAMES, ORIGIN)
    (tmp_path / "confusion.csv").write_text("true class,cat\ncat,1\n")
    with pytest.raises(UserError, match=r"confusion\.csv \(it has 1 rows\): remove it, and evaluate again"):
        read_evaluation(tmp_path)
    (tmp_path / "evaluation.json").write_text(json.dumps({"version": 2}))
    with pytest.raises(UserError, match=r"evaluation\.json \(it has version 2\)"):
        read_evaluation(tmp_path)
