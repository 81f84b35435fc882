"""Every command on checkpoints whose record has other values than the defaults: obeyed, or refused with both values.

Logits are compared with those of a model that gets images which numpy and Pillow alone prepare.
"""

import csv
import dataclasses
import functools
import re

import jax
import numpy as np
import pytest
from helpers.command import make_key
from helpers.command import run_ppvit as _run
from helpers.tiny import assert_same_tree, compiled, flatten, random_params, tiny_model
from PIL import Image

import ppvit_jax
from ppvit_jax import checkpoint, keys, models
from ppvit_jax.adaptation import adapt, restore
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.commands.shared.predictions import Predictions
from ppvit_jax.errors import UserError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
# As text, "10" comes before "2".
NAMES = ("10", "2", "a,b")
RECORD = Metadata("", 16, class_names=NAMES, mean=HALF, std=HALF, resize="centre_crop")
IMAGENET = dataclasses.replace(RECORD, mean=MEAN, std=STD)
MODEL = tiny_model()
PARAMS = random_params(MODEL)
COUNT = 5


@pytest.fixture
def folder(tmp_path):
    """A folder with two keys, and with images of 40x16 pixels, whose center is not their whole."""
    make_key(tmp_path, 1)
    make_key(tmp_path, 2)
    (tmp_path / "images").mkdir()
    random = np.random.default_rng(0)
    for number in range(COUNT):
        Image.fromarray(random.integers(0, 256, (16, 40, 3), np.uint8)).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def _messages(capsys):
    """Returns the lines on standard error, without those of progress and of the list of images."""
    lines = capsys.readouterr().err.splitlines()
    return "".join(f"{line}\n" for line in lines if not re.search("^predicting: |images, not in class folders$", line))


def _pixels(folder, resize):
    images = [Image.open(folder / "images" / f"{number}.png") for number in range(COUNT)]
    box = {"centre_crop": (12, 0, 28, 16), "squash": (0, 0, 40, 16)}[resize]
    return np.stack([np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR, box=box)) for image in images])


@functools.cache
def _model():
    return compiled(models.build(MODEL))


def _logits(images, mean=HALF, std=HALF, params=PARAMS):
    inputs = (images.astype(np.float64) / 255 - np.float64(mean)) / np.float64(std)
    return np.asarray(_model().apply(params, inputs.astype(np.float32)))


def _write(folder, metadata, name="model.npz", params=PARAMS):
    checkpoint.write(folder / name, params, metadata)
    return folder / name


def _predict(folder, *extra, model="model.npz", images="images", output="out.npz"):
    (folder / output).unlink(missing_ok=True)
    options = ["--checkpoint", folder / model, "--input", folder / images, "--output", folder / output]
    return _run("predict", *options, *extra)


def _encrypt(folder, number=1, name="encrypted", *extra):
    options = ["--key", folder / f"{number}.key", "--input", folder / "images", "--output", folder / name]
    return _run("encrypt", *options, *(extra or ("--image-size=16", "--block-size=4")))


def _adapt(folder, *extra, output="adapted.npz", model="model.npz"):
    options = ["--key", folder / "1.key", "--checkpoint", folder / model, "--output", folder / output]
    return _run("adapt", *options, *extra)


def _fingerprint(folder, number=1):
    return keys.load(folder / f"{number}.key").fingerprint


def _images_of(folder, number, **fields):
    return dataclasses.replace(
        RECORD, images_encryption="bs+ps", images_key_fingerprint=_fingerprint(folder, number), **fields
    )


@pytest.mark.slow
def test_predict_normalizes_and_resizes_as_recorded(folder, capsys):
    _write(folder, dataclasses.replace(IMAGENET, resize="squash"))
    assert _predict(folder) == 0
    found = np.load(folder / "out.npz")
    expected = _logits(_pixels(folder, "squash"), MEAN, STD)
    np.testing.assert_allclose(found["logits"], expected, rtol=0, atol=1e-4)
    assert _messages(capsys) == ""
    assert found["class_names"].tolist() == list(NAMES)
    np.testing.assert_array_equal(found["class_index"], expected.argmax(1))
    # An explicit value is used, with a warning that has both.
    assert _predict(folder, "--resize=center_crop") == 0
    assert "warning: --resize is center_crop, but " in (said := _messages(capsys)) and "resized by squash" in said
    expected = _logits(_pixels(folder, "centre_crop"), MEAN, STD)
    np.testing.assert_allclose(np.load(folder / "out.npz")["logits"], expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_csv_can_hold_all_probabilities(folder):
    _write(folder, IMAGENET)
    assert _predict(folder, "--probabilities", output="all.csv") == 0
    assert _predict(folder, output="best.csv") == 0
    with (folder / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = np.asarray(jax.nn.softmax(_logits(_pixels(folder, "centre_crop"), MEAN, STD)))
    assert list(rows[0]) == ["file", "class", "probability", *NAMES]
    for row, values in zip(rows, expected, strict=True):
        np.testing.assert_allclose([float(row[name]) for name in NAMES], values, atol=1e-5)
        assert row["class"] == NAMES[int(values.argmax())] and float(row["probability"]) == float(row[row["class"]])
    with (folder / "best.csv").open(newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)] == [row["class"] for row in rows]


@pytest.mark.slow
def test_a_checkpoint_of_a_former_version_works_with_one_note(folder, capsys):
    _write(folder, Metadata())
    assert _predict(folder) == 0
    found = np.load(folder / "out.npz")
    np.testing.assert_allclose(found["logits"], _logits(_pixels(folder, "centre_crop")), rtol=0, atol=1e-4)
    assert found["class_names"].tolist() == ["0", "1", "2"]
    said = _messages(capsys)
    assert said.count("\n") == 1 and said.startswith("note: ")
    for text in ("normalization", "resizing", "class names", "mean 0.5 and std 0.5", "center_crop", "class numbers"):
        assert text in said
    assert _adapt(folder, "--base-is-public") == 0
    assert "note: " in (said := _messages(capsys)) and "mean 0.5 and std 0.5 are assumed" in said
    assert checkpoint.read(folder / "adapted.npz")[1].image_size == 16


@pytest.mark.slow
def test_adapt_and_restore_keep_the_function_and_the_record(folder, capsys):
    _write(folder, dataclasses.replace(IMAGENET, resize="squash"))
    plain = _logits(_pixels(folder, "squash"), MEAN, STD)
    assert _adapt(folder) == 0
    assert "is rewritten from mean (0.485, 0.456, 0.406) and std" in _messages(capsys)
    metadata = checkpoint.read(folder / "adapted.npz")[1]
    fingerprint = _fingerprint(folder)
    own = {"own_mean": tuple(MEAN), "own_std": tuple(STD)}
    adapted = dataclasses.replace(RECORD, resize="squash", encryption="bs+ps", key_fingerprint=fingerprint, **own)
    assert metadata == adapted
    # The owner needs to name neither the sizes nor the way of resizing.
    assert _encrypt(folder, 1, "encrypted", "--checkpoint", folder / "adapted.npz") == 0
    capsys.readouterr()
    assert _predict(folder, model="adapted.npz", images="encrypted") == 0
    np.testing.assert_allclose(np.load(folder / "out.npz")["logits"], plain, rtol=0, atol=2e-4)
    assert _messages(capsys) == ""

    options = ["--key", folder / "1.key", "--checkpoint", folder / "adapted.npz"]
    assert _run("restore", *options, "--output", folder / "back.npz") == 0
    # The restored model has its own normalization again.
    assert checkpoint.read(folder / "back.npz")[1] == dataclasses.replace(IMAGENET, resize="squash")
    assert _predict(folder, model="back.npz") == 0
    np.testing.assert_allclose(np.load(folder / "out.npz")["logits"], plain, rtol=0, atol=2e-4)
    assert _run("rekey", *options, "--new-key", folder / "2.key", "--output", folder / "moved.npz") == 0
    moved = dataclasses.replace(metadata, key_fingerprint=_fingerprint(folder, 2))
    assert checkpoint.read(folder / "moved.npz")[1] == moved


@pytest.mark.parametrize(("mean", "std"), [((0.4,) * 3, (0.3,) * 3), (MEAN, STD)])
def test_restore_of_a_model_with_another_normalization_computes_the_same(folder, mean, std):
    """The sign of inverted values and the shuffling of channels commute with 0.5 alone."""
    key = keys.load(folder / "1.key")
    permutations = key.permutations("bs+ps+np", image_size=16, patch_size=4)
    # A model that takes encrypted images under this normalization: the function of encrypted pixels counts.
    folded = ppvit_jax.fold_normalization(adapt(PARAMS, permutations), (HALF, HALF), (mean, std))
    record = dataclasses.replace(RECORD, encryption="bs+ps+np", key_fingerprint=key.fingerprint, mean=mean, std=std)
    _write(folder, record, params=folded)
    options = ["--key", folder / "1.key", "--checkpoint", folder / "model.npz", "--output", folder / "back.npz"]
    assert _run("restore", *options) == 0
    arrays, metadata = checkpoint.read(folder / "back.npz")
    assert metadata == RECORD
    for name, array in flatten(PARAMS).items():
        np.testing.assert_allclose(arrays[name], array, rtol=0, atol=1e-6)


def test_a_normalization_that_channels_share_stays_in_the_record(folder):
    key = keys.load(folder / "1.key")
    record = dataclasses.replace(
        RECORD, encryption="bs+ps", key_fingerprint=key.fingerprint, mean=(0.4,) * 3, std=(0.3,) * 3
    )
    _write(folder, record)
    options = ["--key", folder / "1.key", "--checkpoint", folder / "model.npz", "--output", folder / "back.npz"]
    assert _run("restore", *options) == 0
    expected = restore(PARAMS, key.permutations("bs+ps", image_size=16, patch_size=4))
    arrays, metadata = checkpoint.read(folder / "back.npz")
    assert_same_tree(arrays, flatten(expected))
    assert (metadata.mean, metadata.std, metadata.encryption) == (record.mean, record.std, "none")


@pytest.mark.slow
def test_a_model_that_was_trained_on_encrypted_images_takes_these_alone(folder, capsys):
    _write(folder, _images_of(folder, 1))
    assert _encrypt(folder) == 0 and _encrypt(folder, 2, "other") == 0
    capsys.readouterr()
    assert _predict(folder, images="encrypted") == 0
    assert _messages(capsys) == ""
    for images, state in (("images", "count as plain"), ("other", _fingerprint(folder, 2))):
        assert _predict(folder, images=images) == 1
        said = _messages(capsys)
        assert state in said and _fingerprint(folder) in said and "was trained on images encrypted with 'bs+ps'" in said
    assert _predict(folder, "--allow-mismatch") == 0


@pytest.mark.slow
def test_blocks_of_another_side_than_the_patches_are_recorded(folder, capsys):
    _write(folder, _images_of(folder, 1, images_block_size=8))
    for side, status in ((8, 0), (4, 1)):
        assert _encrypt(folder, 1, f"blocks{side}", "--image-size=16", f"--block-size={side}") == 0
        capsys.readouterr()
        assert _predict(folder, images=f"blocks{side}") == status
    assert "blocks of 4x4, but the model was trained on images in blocks of 8x8" in _messages(capsys)


def test_what_is_left_out_is_named_by_encrypt(folder, capsys):
    assert _run("encrypt", "--key", folder / "1.key", "--input", folder / "images", "--output", folder / "big") == 0
    said = _messages(capsys)
    assert "note: images of 224x224 pixels in blocks of 16x16 pixels" in said and "give --checkpoint" in said
    assert _encrypt(folder, 1, "half", "--image-size=32") == 0
    assert "note: blocks of 16x16 pixels, as" in _messages(capsys)
    assert _encrypt(folder, 1, "given", "--image-size=32", "--block-size=8") == 0
    assert "note:" not in _messages(capsys)


def _refusals(folder):
    """Yields the record, the parameters, the command and the values that its message must show."""
    ours, theirs = _fingerprint(folder, 1), _fingerprint(folder, 2)
    trained = _images_of(folder, 1)
    mixed = dataclasses.replace(RECORD, encryption="bs+ps", key_fingerprint=ours).trained_on("bs+ps", theirs)
    model = ["--checkpoint", folder / "model.npz"]
    key, out = ["--key", folder / "1.key"], ["--output", folder / "new"]
    predict = ["predict", *model, "--input", folder / "images", "--output", folder / "new.npz"]
    encrypt = ["encrypt", *key, *model, "--input", folder / "images", *out]
    yield trained, PARAMS, ["adapt", *key, *model, *out], ["is not adapted", "trained on images encrypted", ours]
    yield trained, PARAMS, ["restore", *key, *model, *out], ["is not adapted", "trained on images encrypted", ours]
    yield mixed, PARAMS, ["restore", *key, *model, *out], [ours, theirs]
    yield mixed, PARAMS, ["rekey", *key, *model, "--new-key", folder / "2.key", *out], [ours, theirs]
    yield mixed.trained_on("none", None), PARAMS, ["restore", *key, *model, *out], [ours, "trained on plain images"]
    yield RECORD, PARAMS, [*encrypt, "--image-size=32"], ["--image-size is 32", "16"]
    yield RECORD, PARAMS, [*encrypt, "--block-size=8"], ["--block-size is 8", "4"]
    other_key = dataclasses.replace(RECORD, encryption="bs+ps", key_fingerprint=theirs)
    yield other_key, PARAMS, encrypt, [ours, theirs]
    yield dataclasses.replace(other_key, encryption="bs", key_fingerprint=ours), PARAMS, encrypt, ["'bs'", "'bs+ps'"]
    for command in (predict, ["adapt", *key, *model, *out], encrypt):
        yield dataclasses.replace(RECORD, image_size=32), PARAMS, command, ["32x32", "16 blocks of 4x4"]
        yield dataclasses.replace(RECORD, class_names=("a",)), PARAMS, command, ["1 class names", "3 outputs"]
        yield dataclasses.replace(RECORD, resize="letterbox"), PARAMS, command, ["'letterbox'"]
        yield dataclasses.replace(RECORD, model_options={"window": 7}), PARAMS, command, ["'window'"]
    huge = PARAMS | {"head": {"kernel": PARAMS["head"]["kernel"], "bias": np.full(3, 3e38, np.float32)}}
    huge["head"]["kernel"] = huge["head"]["kernel"] * np.float32(1e38)
    yield RECORD, huge, predict, ["are not finite", "0.png"]
    yield RECORD, PARAMS, [*predict, "--probabilities"], ["--probabilities is for a .csv", "new.npz"]


@pytest.mark.slow
def test_a_contradiction_is_one_line_with_both_values_and_writes_nothing(folder, capsys):
    for metadata, params, command, values in _refusals(folder):
        _write(folder, metadata, params=params)
        before = {path.name for path in folder.iterdir()}
        assert _run(*command) == 1, command
        said = _messages(capsys)
        assert said.startswith("error: ") and said.count("\n") == 1, said
        assert all(value in said for value in values), (said, values)
        assert {path.name for path in folder.iterdir()} == before


def test_info_prints_the_whole_record(folder, capsys):
    names = tuple(f"class {number}" for number in range(12))
    record = dataclasses.replace(
        IMAGENET, class_names=names, resize="squash", model_options={"adaptive_matrix": "free"}
    )
    params = random_params(tiny_model(num_classes=12))
    _write(folder, record.trained_on("etc", "ab" * 16, 8), params=params)
    assert _run("info", folder / "model.npz") == 0
    printed = capsys.readouterr().out
    for text in (
        f"12 ({', '.join(names)})",
        "mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225)\n",
        "squash\n",
        f"images encrypted with 'etc' (key fingerprint {'ab' * 16}) in blocks of 8x8\n",
        "adapted to                 nothing\n",
        "adaptive_matrix=free\n",
    ):
        assert text in printed, printed
    _write(folder, Metadata())
    assert _run("info", folder / "model.npz") == 0
    printed = capsys.readouterr().out
    assert (
        "mean 0.5 and std 0.5 (assumed: not recorded)\n" in printed
        and "class names                not recorded\n" in printed
    )
    assert "center_crop (assumed: not recorded)\n" in printed and "plain images\n" in printed


def test_many_equal_predictions_get_a_warning(folder, capsys):
    few = Predictions(["a"] * 3, np.eye(3, dtype=np.float32)[[1] * 3], NAMES)
    assert few.list_warnings() == []
    many = dataclasses.replace(few, files=["a"] * 40, logits=np.eye(3, dtype=np.float32)[[1] * 40])
    assert "all 40 images are predicted as '2'" in many.list_warnings()[0]
    mixed = dataclasses.replace(many, logits=np.eye(3, dtype=np.float32)[[1] * 39 + [2]])
    assert mixed.list_warnings() == []


@pytest.mark.slow
def test_the_python_interface_normalizes_as_recorded(folder):
    path = _write(folder, IMAGENET)
    params, metadata = ppvit_jax.load_checkpoint(path)
    images = _pixels(folder, "centre_crop")
    logits = ppvit_jax.compute_logits(params, images, metadata)
    np.testing.assert_allclose(logits, _logits(images, MEAN, STD), rtol=0, atol=1e-4)
    folded = ppvit_jax.fold_normalization(params, metadata.normalization, Metadata().normalization)
    np.testing.assert_allclose(ppvit_jax.compute_logits(folded, images), logits, rtol=0, atol=1e-4)
    for wrong, message in (
        (images[:, :8, :8], "8x8 pixels, but the model takes 16x16"),
        (images[0], r"have the shape \(16, 16, 3\)"),
        (images / 255, "float64 of at most 1"),
    ):
        with pytest.raises(UserError, match=message):
            ppvit_jax.compute_logits(params, wrong, metadata)
    with pytest.raises(UserError, match="records 1 class names, but its head has 3"):
        ppvit_jax.compute_logits(params, images, dataclasses.replace(metadata, class_names=("a",)))
