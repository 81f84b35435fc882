"""Tests of `ppvit evaluate`."""

import csv
import json

import numpy as np
import pytest
from helpers.command import make_key
from helpers.command import run_ppvit as _run
from helpers.images import write_images
from helpers.labeled import write_csv
from helpers.tiny import random_params, tiny_model
from helpers.toy import COUNTS, build
from sklearn import metrics

from ppvit_jax import adaptation, checkpoint, keys
from ppvit_jax.checkpoint import Metadata

MODEL = tiny_model(image_size=32, patch_size=8)
PARAMS = random_params(MODEL)
CLASSES = ("cat", "dog", "owl")
# The owls come first in the model, and last among the folders.
OUTPUTS = ("owl", "cat", "dog")
FILES = [f"{split}/{name}/{number}.png" for split in ("train", "test") for name in CLASSES for number in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a plain and an adapted model, plain and encrypted images, and two keys."""
    root = tmp_path_factory.mktemp("evaluate")
    key = make_key(root, 1)
    permutations = keys.load(key).permutations("bs+ps", image_size=32, patch_size=8)
    checkpoint.write(root / "plain.npz", PARAMS, Metadata("", 32, class_names=OUTPUTS))
    checkpoint.write(
        root / "adapted.npz",
        adaptation.adapt(PARAMS, permutations),
        Metadata("", 32, "bs+ps", keys.load(key).fingerprint, OUTPUTS),
    )
    write_images(root / "images", FILES, size=32)
    for number, path in enumerate((key, make_key(root, 2)), start=1):
        options = ["--image-size=32", "--patch-size=8", "--input", root / "images"]
        encrypted = ["--key", path, "--output", root / f"encrypted{number}"]
        assert _run("encrypt", *encrypted, *options) == 0
    return root


def _evaluate(folder, output, model, *arguments):
    return _run("evaluate", "--checkpoint", folder / model, "--output", output, *arguments)


def _content(output):
    return json.loads((output / "evaluation.json").read_text())


@pytest.mark.slow
def test_measures_are_those_of_the_predictions(folder, tmp_path, capsys):
    output = tmp_path / "out"
    assert _evaluate(folder, output, "plain.npz", "--input", folder / "images", "--batch-size=5") == 0
    printed = capsys.readouterr().out
    assert (
        _run(
            *("predict", "--checkpoint", folder / "plain.npz", "--input", folder / "images" / "test"),
            *("--output", tmp_path / "out.npz"),
        )
        == 0
    )
    with np.load(tmp_path / "out.npz") as file:
        logits, files = file["logits"], file["files"].tolist()
    labels = [OUTPUTS.index(name.split("/")[0]) for name in files]
    content = _content(output)
    assert content["examples"] == 12 and [row["name"] for row in content["classes"]] == list(OUTPUTS)
    assert content["metrics"]["accuracy"] == metrics.accuracy_score(labels, logits.argmax(1))
    exponentials = np.exp(logits.astype(np.float64))
    shares = exponentials / exponentials.sum(1, keepdims=True)
    assert content["metrics"]["loss"] == pytest.approx(metrics.log_loss(labels, shares, labels=range(3)), rel=1e-5)
    with (output / "confusion.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["true class", *OUTPUTS]
    confusion = metrics.confusion_matrix(labels, logits.argmax(1), labels=range(3))
    np.testing.assert_array_equal(np.array([row[1:] for row in rows[1:]], int), confusion)
    assert (output / "confusion.png").exists()
    lines = printed.splitlines()
    assert lines[0].split() == ["images", "12"] and lines[1].startswith("loss ") and lines[2].startswith("accuracy ")
    assert lines[-1].startswith(f"{output / 'evaluation.json'}, {output / 'confusion.csv'}, ")


@pytest.mark.slow
def test_the_adapted_model_on_encrypted_images_has_the_plain_measures(folder, tmp_path):
    assert _evaluate(folder, tmp_path / "plain", "plain.npz", "--input", folder / "images") == 0
    assert _evaluate(folder, tmp_path / "cloud", "adapted.npz", "--input", folder / "encrypted1") == 0
    plain, cloud = _content(tmp_path / "plain"), _content(tmp_path / "cloud")
    assert plain["metrics"].pop("loss") == pytest.approx(cloud["metrics"].pop("loss"), rel=1e-6)
    error = plain["metrics"].pop("calibration_error")
    assert error == pytest.approx(cloud["metrics"].pop("calibration_error"), abs=1e-6)
    assert plain["metrics"] == cloud["metrics"] and plain["classes"] == cloud["classes"]
    confusions = [(tmp_path / name / "confusion.csv").read_bytes() for name in ("plain", "cloud")]
    assert confusions[0] == confusions[1]
    assert plain["origin"]["encryption"] == "none" and cloud["origin"]["encryption"] == "bs+ps"
    assert cloud["origin"]["key_fingerprint"] == keys.load(folder / "1.key").fingerprint


def test_a_split_folder_has_the_manifest_above(folder, tmp_path):
    assert _evaluate(folder, tmp_path / "inside", "adapted.npz", "--input", folder / "encrypted1" / "train") == 0
    arguments = ["--input", folder / "encrypted1", "--split", "training"]
    assert _evaluate(folder, tmp_path / "split", "adapted.npz", *arguments) == 0
    assert _content(tmp_path / "inside")["metrics"] == _content(tmp_path / "split")["metrics"]


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("adapted.npz", ["--input", "encrypted2"], "use a model and images with the same key and encryption"),
        ("adapted.npz", ["--input", "images"], "count as plain, because they have no manifest.json"),
        ("plain.npz", ["--input", "encrypted1"], "use a model and images with the same key and encryption"),
        ("plain.npz", ["--input", "images", "--split", "val"], "no split 'val': choose one of test, train by --split"),
        ("plain.npz", ["--input", "images/test/cat"], "has no class folders"),
        ("plain.npz", ["--input", "nothing"], "there is no "),
        ("plain.npz", ["--input", "images", "--data-dir", "x"], "--data-dir needs --tfds: leave it out"),
    ],
)
def test_bad_input_gives_one_line(folder, tmp_path, capsys, monkeypatch, model, arguments, message):
    monkeypatch.chdir(folder)
    assert _evaluate(folder, tmp_path / "out", model, *arguments) == 1
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1, errors
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_mismatch_may_be_allowed(folder, tmp_path):
    arguments = ["--input", folder / "encrypted2", "--allow-mismatch"]
    assert _evaluate(folder, tmp_path / "out", "adapted.npz", *arguments) == 0


@pytest.mark.slow
def test_classes_are_matched_by_name(folder, tmp_path, capsys):
    write_images(tmp_path / "fish", ["cat/0.png", "fish/0.png", "trout/0.png"], size=32)
    assert _evaluate(folder, tmp_path / "out", "plain.npz", "--input", tmp_path / "fish") == 1
    assert "the images have the class 'fish' and 1 others, which " in (errors := capsys.readouterr().err)
    assert "lacks (its classes are owl, cat, dog): rename" in errors
    write_images(tmp_path / "some", ["cat/0.png", "dog/0.png"], size=32)
    assert _evaluate(folder, tmp_path / "out", "plain.npz", "--input", tmp_path / "some") == 0
    assert "note: no image shows owl" in capsys.readouterr().err
    checkpoint.write(tmp_path / "nameless.npz", PARAMS, Metadata("", 32))
    some = ["--checkpoint", tmp_path / "nameless.npz", "--output", tmp_path / "names", "--input"]
    assert _run("evaluate", *some, tmp_path / "some") == 1
    assert "has 3 outputs without names, but the images have 2 classes" in capsys.readouterr().err
    assert _run("evaluate", *some, folder / "images") == 0
    assert "its outputs are taken as the images' classes in order" in capsys.readouterr().err
    assert [row["name"] for row in _content(tmp_path / "names")["classes"]] == list(CLASSES)


def test_results_are_not_overwritten(folder, tmp_path, capsys):
    (tmp_path / "evaluation.json").write_text("{}")
    assert _evaluate(folder, tmp_path, "plain.npz", "--input", folder / "images") == 1
    assert "evaluation.json exists: choose another folder for --output" in capsys.readouterr().err


@pytest.mark.slow
def test_a_csv_has_the_measures_of_its_folder(folder, tmp_path):
    rows = [(folder / "images" / path, path.split("/")[1], path.split("/")[0]) for path in FILES]
    file = write_csv(tmp_path / "list.csv", rows, ("path", "label", "split"))
    assert _evaluate(folder, tmp_path / "csv", "plain.npz", "--csv", file) == 0
    assert _evaluate(folder, tmp_path / "folder", "plain.npz", "--input", folder / "images") == 0
    assert _content(tmp_path / "csv")["metrics"] == _content(tmp_path / "folder")["metrics"]


@pytest.mark.slow
def test_a_csv_with_several_labels_has_their_measures(folder, tmp_path, capsys):
    labels = [("cat", "dog"), ("owl",), ("dog",), ("cat",), (), ("cat", "dog", "owl")]
    rows = [(folder / "images" / path, ";".join(names) + ";") for path, names in zip(FILES, labels, strict=False)]
    file = write_csv(tmp_path / "list.csv", rows)
    checkpoint.write(tmp_path / "several.npz", PARAMS, Metadata("", 32, class_names=OUTPUTS, task="multi_label"))
    model = ["--checkpoint", tmp_path / "several.npz"]
    assert _run("evaluate", *model, "--csv", file, "--output", tmp_path / "out") == 0
    assert _run("predict", *model, "--csv", file, "--output", tmp_path / "out.npz") == 0
    with np.load(tmp_path / "out.npz") as arrays:
        logits = arrays["logits"]
    truth = np.array([[name in names for name in OUTPUTS] for names in labels])
    content = _content(tmp_path / "out")
    assert content["task"] == "multi_label" and not (tmp_path / "out" / "confusion.csv").exists()
    expected = metrics.average_precision_score(truth, logits, average="macro")
    assert content["metrics"]["mean_average_precision"] == pytest.approx(expected, rel=1e-6)
    assert _run("predict", *model, "--csv", file, "--output", tmp_path / "out.csv", "--probabilities") == 0
    with (tmp_path / "out.csv").open(newline="") as text:
        written = [[float(row[name]) for name in OUTPUTS] for row in csv.DictReader(text)]
    np.testing.assert_allclose(written, 1 / (1 + np.exp(-logits.astype(np.float64))), atol=1e-6)
    capsys.readouterr()
    assert _run("evaluate", *model, "--input", folder / "images", "--output", tmp_path / "one") == 1
    assert "was trained on any number of labels per image, but the images have one label" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--tfds", "--input"])
def test_a_tfds_data_set_has_splits(tmp_path, option):
    path = build(tmp_path / "data", fixed=True)
    checkpoint.write(tmp_path / "abc.npz", PARAMS, Metadata("", 32, class_names=("c", "a", "b")))
    source = ["--tfds", "toy", "--data-dir", tmp_path / "data"] if option == "--tfds" else ["--input", path]
    for split, count in (("", COUNTS["test"]), ("train[:7]", 7)):
        output = tmp_path / (split or "test")
        assert _evaluate(tmp_path, output, "abc.npz", *source, *(["--split", split] if split else [])) == 0
        content = _content(output)
        # Example i has the class i % 3.
        examples = {row["name"]: row["examples"] for row in content["classes"]}
        assert content["examples"] == count
        if not split:
            assert sum(examples.values()) == 5
