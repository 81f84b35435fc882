"""Tests of `ppvit adapt`, `restore`, `rekey`, `predict` and `info` on models other than Vision Transformers."""

import json
import re
import zipfile

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.command import make_key
from helpers.command import run_ppvit as _run
from helpers.images import write_images
from helpers.tiny import assert_same_tree, flatten, random_dataset, random_params

from ppvit_jax import checkpoint, keys, models
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.config import default_config
from ppvit_jax.experiment import run

CLASSES = ("cat", "dog", "owl")


def _model(kind, name="ConvMixer-16/2"):
    options = {"patch_size": 4, "kernel_size": 3, "adaptive_matrix": kind}
    return models.parse_name(name, image_size=16, num_classes=3, options=options)


def _write(path, config, **fields):
    """Writes a checkpoint of random parameters and statistics."""
    random, model = np.random.default_rng(1), models.build(config)
    shapes = flatten(jax.eval_shape(model.init_statistics, jax.random.key(0)))
    statistics = {name: random.uniform(0.5, 1.5, leaf.shape).astype(np.float32) for name, leaf in shapes.items()}
    content = checkpoint.join(random_params(config), unflatten_dict(statistics, sep="/"))
    metadata = {"image_size": 16, "class_names": CLASSES, "model_options": models.recorded_options(config), **fields}
    checkpoint.write(path, content, Metadata(**metadata))


@pytest.fixture
def folder(tmp_path):
    make_key(tmp_path, 1)
    make_key(tmp_path, 2)
    write_images(tmp_path / "images", ["cat/a.png", "dog/b.png", "owl/c.png"], size=16)
    return tmp_path


def _adapt(folder, encryption, output="adapted.npz"):
    options = ["--key", folder / "1.key", "--image-size=16", "--encryption", encryption]
    return _run("adapt", *options, "--checkpoint", folder / "plain.npz", "--output", folder / output)


def _logits(folder, model, images, number=1, encryption="none"):
    """Returns the logits of `ppvit predict` on images encrypted with a key."""
    output = folder / f"{model}.{images}.{number}.npz".replace("/", ".")
    if encryption != "none":
        options = ["--image-size=16", "--patch-size=4", "--encryption", encryption, "--input", folder / "images"]
        assert _run("encrypt", "--key", folder / f"{number}.key", *options, "--output", folder / images) == 0
    options = ["--checkpoint", folder / model, "--input", folder / images, "--output", output]
    assert _run("predict", *options) == 0
    return np.load(output)["logits"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "encryption"),
    [("none", "ps"), ("none", "np"), ("free", "bs+ps"), ("softmax", "bs+ps"), ("sinkhorn", "bs+ps+np")],
)
def test_a_convmixer_goes_through_every_command_and_back(folder, kind, encryption):
    config = _model(kind)
    _write(folder / "plain.npz", config)
    plain = _logits(folder, "plain.npz", "images")
    assert np.ptp(plain) > 0.05
    content, _ = checkpoint.read(folder / "plain.npz")
    assert any(name.startswith("statistics/") for name in content)

    assert _adapt(folder, encryption) == 0
    np.testing.assert_allclose(_logits(folder, "adapted.npz", "first", 1, encryption), plain, rtol=0, atol=1e-5)
    options = ["--checkpoint", folder / "adapted.npz", "--key", folder / "1.key"]
    assert _run("rekey", *options, "--new-key", folder / "2.key", "--output", folder / "rekeyed.npz") == 0
    np.testing.assert_allclose(_logits(folder, "rekeyed.npz", "second", 2, encryption), plain, rtol=0, atol=1e-5)

    assert _run("restore", *options, "--output", folder / "restored.npz") == 0
    assert_same_tree(checkpoint.read(folder / "restored.npz")[0], content)
    adapted, metadata = checkpoint.read(folder / "adapted.npz")
    fingerprint = keys.load(folder / "1.key").fingerprint
    recorded = {} if kind == "none" else {"adaptive_matrix": kind}
    assert metadata == Metadata("ConvMixer-16/2", 16, encryption, fingerprint, CLASSES, recorded)
    moved = {name for name in content if (adapted[name] != content[name]).any()}
    assert moved == {"embedding/kernel"} | ({"adaptive_matrix"} if kind != "none" else set())


@pytest.mark.slow
def test_a_convmixer_that_a_run_trained_is_restored_by_what_its_checkpoint_says(folder):
    config = default_config()
    config.update({"checkpoint": "", "model": "ConvMixer-8/1", "image_size": 16, "encryption": "bs+ps", "epochs": 1})
    config.update({"batch_size": 8, "eval_batch_size": 8, "tensorboard": False})
    config.model_options.update({"patch_size": 4, "kernel_size": 3, "adaptive_matrix": "softmax"})
    config.key_file = str(folder / "1.key")
    run(config, folder / "run", random_dataset())
    options = ["--checkpoint", folder / "run" / "checkpoint.npz", "--output", folder / "plain.npz"]
    assert _run("restore", *options, "--key", folder / "1.key") == 0
    encrypted = _logits(folder, "run/checkpoint.npz", "encrypted", 1, "bs+ps")
    np.testing.assert_allclose(_logits(folder, "plain.npz", "images"), encrypted, rtol=0, atol=1e-5)
    assert np.ptp(encrypted) > 0.01


def test_info_tells_the_shape_of_a_convmixer_as_far_as_it_is_known(folder, capsys):
    _write(folder / "plain.npz", _model("softmax"), model="ConvMixer-16/2")
    assert _run("info", folder / "plain.npz") == 0
    facts = dict(re.split("  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert facts["checkpoint"].startswith("ConvMixer-16/2, 0.00 million parameters and statistics")
    assert facts["image size"] == "16x16, patches of 4x4"
    assert facts["shape"] == "hidden 16, 2 layers, convolutions of 3x3"
    assert (facts["adaptive matrix"], facts["classes"]) == ("softmax", "3 (cat, dog, owl)")
    _write(folder / "old.npz", _model("softmax"), model="ConvMixer-16/2", model_options={})
    assert _run("info", folder / "old.npz") == 0
    assert "adaptive matrix" not in (printed := capsys.readouterr().out) and "image size       16x16\n" in printed


def test_options_are_in_the_file_only_where_they_are_needed(folder):
    for name, config in {"with": _model("free"), "without": _model("none")}.items():
        _write(folder / f"{name}.npz", config)
        with zipfile.ZipFile(folder / f"{name}.npz") as archive:
            fields = json.loads(archive.comment.removeprefix(b"ppvit "))
        assert fields.get("model_options") == ({"adaptive_matrix": "free"} if name == "with" else None)


MISTAKES = {
    "kind unknown": (
        "free",
        {"model_options": {}},
        [],
        "does not record the form of its adaptive matrix .free, softmax",
    ),
    "size unknown": ("none", {"image_size": 0}, None, "does not record the size of its images"),
    "another size": ("free", {}, ["--image-size=32"], "by a matrix, which cannot be resized: give --image-size 16"),
    "a patch too small": (
        "none",
        {},
        ["--image-size=18"],
        "--image-size 18 is not a multiple of the model's patch size",
    ),
    "blocks without a matrix": ("none", {}, ["--encryption=bs+ps"], "no position embedding, so it cannot be adapted"),
    "damaged options": ("free", {"model_options": 3}, [], "damaged"),
    "damaged values": ("free", {"model_options": {"adaptive_matrix": [1]}}, [], "damaged"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_line_and_writes_nothing(folder, capsys, mistake):
    kind, fields, extra, message = MISTAKES[mistake]
    _write(folder / "plain.npz", _model(kind), **fields)
    before = {path.name for path in folder.iterdir()}
    options = ["--checkpoint", folder / "plain.npz", "--output", folder / "out.npz"]
    if extra is None:
        # `adapt` gets the size as an argument, `predict` does not.
        command = ["predict", *options, "--input", folder / "images"]
    else:
        command = ["adapt", *options, "--key", folder / "1.key", "--image-size=16", *extra]
    assert _run(*command) == 1
    errors = capsys.readouterr().err
    assert re.search(message, errors), errors
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert {path.name for path in folder.iterdir()} == before


def test_statistics_of_another_model_are_refused(folder, capsys):
    _write(folder / "plain.npz", _model("none"))
    arrays, metadata = checkpoint.read(folder / "plain.npz")
    params, _ = checkpoint.split(arrays)
    checkpoint.write(folder / "plain.npz", unflatten_dict(params, sep="/"), metadata)
    assert _adapt(folder, "ps") == 1
    assert "its statistics are of another shape" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ResNet-18", "PyramidNet-8/12", "NeuraCrypt-32/8"])
def test_other_families_are_refused_with_the_reason(folder, capsys, name):
    config = models.parse_name(name, image_size=16, num_classes=3)
    _write(folder / "plain.npz", config, model=name)
    options = ["--checkpoint", folder / "plain.npz", "--output", folder / "out.npz"]
    for command in (
        ["adapt", *options, "--key", folder / "1.key", "--image-size=16"],
        ["restore", *options, "--key", folder / "1.key", "--encryption=ps"],
        ["predict", *options, "--input", folder / "images"],
    ):
        assert _run(*command) == 1
        errors = capsys.readouterr().err
        assert re.search("is a .* cannot be adapted|is a .*, whose shape cannot be read", errors), errors
        assert errors.startswith("error: ") and errors.count("\n") == 1
    assert _run("info", folder / "plain.npz") == 0
    assert capsys.readouterr().out.startswith(f"checkpoint       {name}, ")
