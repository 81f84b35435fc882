"""Tests of `ppvit predict`."""

import csv
import re

import jax
import numpy as np
import pytest
from helpers.command import make_key
from helpers.command import run_ppvit as _run
from helpers.images import read_images, write_images
from helpers.tiny import flatten, random_params, tiny_model
from helpers.toy import COUNTS, build

from ppvit_jax import adaptation, checkpoint, keys, models
from ppvit_jax.checkpoint import Metadata

MODEL = tiny_model(image_size=32, patch_size=8)
PARAMS = random_params(MODEL)
CLASSES = ("cat", "dog", "owl")
FILES = ["cat/a.png", "cat/b.jpg", "dog/c.png", "dog/sub/d.png", "e f/g.png"]


@pytest.fixture
def folder(tmp_path):
    """A folder with a plain and an adapted model, plain and encrypted images, and two keys."""
    key = make_key(tmp_path, 1)
    make_key(tmp_path, 2)
    permutations = keys.load(key).permutations("bs+ps", image_size=32, patch_size=8)
    checkpoint.write(tmp_path / "plain.npz", PARAMS, Metadata("", 32, class_names=CLASSES))
    checkpoint.write(
        tmp_path / "adapted.npz",
        adaptation.adapt(PARAMS, permutations),
        Metadata("", 32, "bs+ps", keys.load(key).fingerprint, CLASSES),
    )
    write_images(tmp_path / "images", FILES, size=32)
    options = ["--image-size=32", "--patch-size=8", "--input", tmp_path / "images"]
    assert _run("encrypt", "--key", key, "--output", tmp_path / "encrypted", *options) == 0
    return tmp_path


def _predict(folder, model, images, *extra, output="out.npz"):
    arguments = ["--checkpoint", folder / model, "--input", folder / images, "--output", folder / output]
    return _run("predict", *arguments, *extra)


@pytest.mark.slow
def test_logits_are_the_models_in_the_order_of_the_paths(folder):
    assert _predict(folder, "plain.npz", "images", "--batch-size=2") == 0
    with np.load(folder / "out.npz", allow_pickle=False) as file:
        logits, files = file["logits"], file["files"]
    assert (logits.shape, logits.dtype, files.tolist()) == ((5, 3), np.float32, FILES)
    for row, name in zip(logits, FILES, strict=True):
        if name.endswith(".png"):
            image = read_images(folder / "images")[name].astype(np.float32) / 127.5 - 1
            np.testing.assert_allclose(row, models.build(MODEL).apply(PARAMS, image[None])[0], atol=1e-5)


def test_the_adapted_model_on_encrypted_images_gives_the_plain_logits(folder):
    assert _predict(folder, "plain.npz", "images") == 0
    assert _predict(folder, "adapted.npz", "encrypted", output="encrypted.npz") == 0
    one, other = np.load(folder / "out.npz"), np.load(folder / "encrypted.npz")
    assert np.ptp(one["logits"]) > 0.1
    np.testing.assert_allclose(other["logits"], one["logits"], atol=1e-5)
    assert other["files"].tolist()[0] == "cat/00000000.png"


@pytest.mark.slow
def test_a_folder_inside_and_one_image_have_the_manifest_above(folder):
    assert _predict(folder, "adapted.npz", "encrypted") == 0
    assert _predict(folder, "adapted.npz", "encrypted/dog", output="dog.npz") == 0
    assert _predict(folder, "adapted.npz", "encrypted/dog/00000002.png", output="one.npz") == 0
    logits = np.load(folder / "out.npz")["logits"]
    np.testing.assert_allclose(np.load(folder / "dog.npz")["logits"], logits[2:4], atol=1e-5)
    np.testing.assert_allclose(np.load(folder / "one.npz")["logits"], logits[2:3], atol=1e-5)


@pytest.mark.slow
def test_classes_and_probabilities_as_a_table(folder):
    assert _predict(folder, "plain.npz", "images") == 0
    assert _predict(folder, "plain.npz", "images", output="out.csv") == 0
    with (folder / "out.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "class", "probability"]
    logits = np.load(folder / "out.npz")["logits"]
    for row, name, values in zip(rows[1:], FILES, logits, strict=True):
        assert row[:2] == [name, CLASSES[int(values.argmax())]]
        np.testing.assert_allclose(float(row[2]), jax.nn.softmax(values).max(), atol=1e-6)


def test_classes_without_names_are_numbers(folder):
    checkpoint.write(folder / "nameless.npz", PARAMS, Metadata())
    assert _predict(folder, "nameless.npz", "images", output="out.csv") == 0
    assert {line.split(",")[1] for line in (folder / "out.csv").read_text().splitlines()[1:]} <= {"0", "1", "2"}


@pytest.mark.slow
def test_a_tfds_data_set(folder):
    build(folder / "data", fixed=False)
    options = ["--key", folder / "1.key", "--tfds=toy", "--data-dir", folder / "data", "--splits=test"]
    assert _run("encrypt", *options, "--image-size=32", "--patch-size=8", "--output", folder / "sealed") == 0
    assert _predict(folder, "plain.npz", "data/toy/1.0.0") == 0
    assert _predict(folder, "adapted.npz", "sealed/toy/1.0.0", output="encrypted.npz") == 0
    plain, encrypted = np.load(folder / "out.npz"), np.load(folder / "encrypted.npz")
    chosen = [i for i, name in enumerate(plain["files"]) if name.startswith("test/")]
    assert len(plain["files"]) == sum(COUNTS.values()) and len(chosen) == COUNTS["test"]
    np.testing.assert_allclose(encrypted["logits"], plain["logits"][chosen], atol=1e-5)


@pytest.mark.slow
def test_another_key_is_refused_with_both_fingerprints_unless_asked_for(folder, capsys):
    options = ["--image-size=32", "--patch-size=8", "--input", folder / "images"]
    assert _run("encrypt", "--key", folder / "2.key", "--output", folder / "other", *options) == 0
    capsys.readouterr()
    assert _predict(folder, "adapted.npz", "other") == 1
    errors = capsys.readouterr().err
    for number in (1, 2):
        assert keys.load(folder / f"{number}.key").fingerprint in errors
    assert _predict(folder, "adapted.npz", "other", "--allow-mismatch") == 0
    assert _predict(folder, "adapted.npz", "encrypted", output="right.npz") == 0
    assert np.abs(np.load(folder / "out.npz")["logits"] - np.load(folder / "right.npz")["logits"]).max() > 0.1


def _headless(folder):
    arrays = {name: branch for name, branch in PARAMS.items() if name != "head"}
    checkpoint.write(folder / "plain.npz", arrays, Metadata())


def _other_size(folder):
    checkpoint.write(folder / "adapted.npz", random_params(tiny_model(image_size=16, patch_size=8)), Metadata())


def _pickled(folder):
    arrays = flatten(PARAMS) | {"evil": np.array([{"object": 1}], dtype=object)}
    with (folder / "plain.npz").open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]


def _path_as_name(folder):
    arrays = flatten(PARAMS) | {"../../evil": np.zeros(3)}
    with (folder / "plain.npz").open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]


def _tampered(folder):
    path = folder / "encrypted" / "manifest.json"
    path.write_text(path.read_text().replace("bs+ps", "bs"))


MISTAKES = {
    "plain model, encrypted images": (None, "plain.npz", "encrypted", [], "is a plain model, but the images in .*bs"),
    "adapted model, plain images": (
        None,
        "adapted.npz",
        "images",
        [],
        "count as plain, because they have no manifest.json",
    ),
    "another size": (_other_size, "adapted.npz", "encrypted", [], "32x32 pixels but the model takes 16x16"),
    "another size all the same": (_other_size, "adapted.npz", "encrypted", ["--allow-mismatch"], "cannot be resized"),
    "no head": (_headless, "plain.npz", "images", [], "has no head"),
    "pickled objects": (_pickled, "plain.npz", "images", [], "holds pickled Python objects"),
    "a path as a name": (_path_as_name, "plain.npz", "images", [], "has a path as an array's name"),
    "a tampered manifest": (_tampered, "adapted.npz", "encrypted", [], "its SHA-256 does not match"),
    "no images": (lambda f: (f / "none").mkdir(), "plain.npz", "none", [], "has no images"),
    "no folder": (None, "plain.npz", "nowhere", [], "there is no .*nowhere"),
    "another ending": (None, "plain.npz", "images", ["--output={tmp}/out.txt"], "ends neither in .npz nor in .csv"),
    "output exists": (None, "plain.npz", "images", ["--output={tmp}/plain.npz"], "exists: choose another name"),
    "batch of none": (None, "plain.npz", "images", ["--batch-size=0"], "give at least 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_line_and_no_predictions(folder, capsys, mistake):
    make, model, images, extra, message = MISTAKES[mistake]
    if make:
        make(folder)
    capsys.readouterr()
    assert _predict(folder, model, images, *(text.format(tmp=folder) for text in extra)) == 1
    errors = capsys.readouterr().err
    assert re.search(message, errors), errors
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert not list(folder.glob("*out.*"))
