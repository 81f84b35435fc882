"""Deltas of LoRA and the linear probe: whole models of them by merge and restore, and refusals."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.command import make_key, run_ppvit
from helpers.tiny import assert_close_tree, assert_same_tree, random_dataset
from PIL import Image

from ppvit_jax import checkpoint
from ppvit_jax.config import check, default_config
from ppvit_jax.config import load as load_config
from ppvit_jax.errors import UserError
from ppvit_jax.training import experiment
from ppvit_jax.training.inference import load_checkpoint

DATASET = random_dataset(train=16, test=8, size=16)
METHODS = ("lora", "probe")


def _config(method, **fields):
    config = default_config()
    config.checkpoint, config.model, config.image_size = "embedded", "ViT-Micro/8", 16
    config.dtype, config.batch_size, config.eval_batch_size, config.epochs = "float64", 8, 8, 2
    config.optimizer.learning_rate = 0.05
    config.tensorboard = False
    config.tuning.update({"method": method, "rank": 2, "layers": (".*",)})
    config.update(fields)
    return check(config)


@pytest.fixture(scope="module", params=METHODS)
def runs(request, tmp_path_factory):
    """Tunes the model in the package on plain images, and adapted on encrypted ones; returns the folder."""
    folder = tmp_path_factory.mktemp(request.param)
    make_key(folder, 5).rename(folder / "secret.key")
    for name, encryption in (("plain", "none"), ("adapted", "bs+ps")):
        experiment.run(_config(request.param, encryption=encryption), folder / name, DATASET, key_folder=folder)
    return folder


def _lines(capsys):
    return capsys.readouterr().err.splitlines()


@pytest.mark.slow
def test_restore_of_an_adapted_delta_is_the_merged_plain_one(runs, capsys):
    """Both start from the model in the package, whose positions are resized from 64 to 16 pixels."""
    plain, adapted = runs / "plain" / "checkpoint.npz", runs / "adapted" / "checkpoint.npz"
    deltas = [checkpoint.read(path, delta=True) for path in (plain, adapted)]
    assert_close_tree(deltas[1][0], deltas[0][0], 1e-9)
    assert (plain.stat().st_size < 0.2 * checkpoint.resolve("embedded").stat().st_size) or runs.name.startswith("lora")
    assert run_ppvit("merge", "--base", "embedded", "--delta", plain, "--output", runs / "merged.npz") == 0
    restoring = ["restore", "--key", runs / "secret.key", "--base", "embedded", "--checkpoint", adapted]
    assert run_ppvit(*restoring, "--output", runs / "restored.npz") == 0
    merged, restored = (checkpoint.read(runs / f"{name}.npz") for name in ("merged", "restored"))
    assert_close_tree(restored[0], merged[0], 1e-9)
    assert merged[1] == restored[1] == dataclasses.replace(deltas[0][1], delta=None)
    base = checkpoint.read(checkpoint.resolve("embedded"))[0]
    kernel = "Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel"
    changed = abs(merged[0][kernel] - base[kernel]).max()
    assert changed > 1e-4 if runs.name.startswith("lora") else changed == 0
    np.testing.assert_array_equal(merged[0]["embedding/kernel"], base["embedding/kernel"])
    # The whole model has the accuracy that the run has measured.
    with jax.enable_x64(True):
        result = experiment.run(
            _config(
                "full", checkpoint=str(runs / "merged.npz"), head="keep", freeze=(".*",), epochs=1, encryption="none"
            ),
            runs / "again",
            DATASET,
        )
    expected = json.loads((runs / "plain" / "result.json").read_text())
    np.testing.assert_allclose(result["test_loss"], expected["test_loss"], rtol=1e-5)
    capsys.readouterr()
    # A base that is plain does not make an adapted model.
    assert run_ppvit("merge", "--base", "embedded", "--delta", adapted, "--output", runs / "no.npz") == 1
    (line,) = _lines(capsys)
    assert "the base embedded is plain" in line and "ppvit restore --key KEY --base embedded" in line
    make_key(runs, 6)
    other = ["restore", "--key", runs / "6.key", "--base", "embedded", "--checkpoint", adapted]
    assert run_ppvit(*other, "--output", runs / "no.npz") == 1
    assert "use the model's key" in _lines(capsys)[0]
    assert run_ppvit(*restoring[:3], *restoring[3:5], "--checkpoint", plain, "--output", runs / "no.npz") == 1
    assert "nothing to restore" in _lines(capsys)[0]


@pytest.mark.slow
def test_a_delta_is_named_wherever_a_whole_model_is_needed(runs, tmp_path, capsys):
    adapted = runs / "adapted" / "checkpoint.npz"
    assert run_ppvit("info", adapted) == 0
    text = capsys.readouterr().out
    assert "delta of ViT-Micro/8" in text and "embedded, SHA-256" in text and "ppvit merge --base embedded" in text
    Image.new("RGB", (16, 16)).save(tmp_path / "image.png")
    out, key = ["--output", tmp_path / "out.npz"], ["--key", runs / "secret.key"]
    for command in (
        ["predict", "--checkpoint", adapted, "--input", tmp_path, *out],
        ["restore", *key, "--checkpoint", adapted, *out],
        ["rekey", *key, "--new-key", runs / "secret.key", "--checkpoint", adapted, *out],
        ["adapt", *key, "--checkpoint", runs / "plain" / "checkpoint.npz", *out],
        ["merge", "--base", adapted, "--delta", adapted, *out],
    ):
        assert run_ppvit(*command) == 1, command
        (line,) = _lines(capsys)
        assert "is a delta (" in line and "ppvit merge --base embedded --delta " in line, line
    with pytest.raises(UserError, match="is a delta"):
        load_checkpoint(adapted)
    with pytest.raises(UserError, match="is a delta"):
        experiment.run(_config("probe", checkpoint=str(adapted)), tmp_path / "run", DATASET)


@pytest.mark.slow
def test_predict_takes_the_base_of_a_delta(runs, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        Image.fromarray(np.asarray(DATASET.test.fetch(number))).save(images / f"{number}.png")
    delta, merged = runs / "plain" / "checkpoint.npz", tmp_path / "merged.npz"
    assert run_ppvit("merge", "--base", "embedded", "--delta", delta, "--output", merged) == 0
    both = {"one": [delta, "--base", "embedded"], "two": [merged]}
    for name, arguments in both.items():
        output = tmp_path / f"{name}.npz"
        assert run_ppvit("predict", "--checkpoint", *arguments, "--input", images, "--output", output) == 0
    params, metadata = load_checkpoint(delta, base="embedded")
    assert_same_tree(params, checkpoint.read(merged)[0])
    assert metadata == checkpoint.read(merged)[1]
    with pytest.raises(UserError, match="embedded is plain"):
        load_checkpoint(runs / "adapted" / "checkpoint.npz", base="embedded")
    one, two = (np.load(tmp_path / f"{name}.npz") for name in both)
    np.testing.assert_array_equal(one["logits"], two["logits"])


@pytest.mark.slow
def test_a_delta_for_another_base_is_refused(runs, tmp_path, capsys):
    delta = runs / "plain" / "checkpoint.npz"
    arrays, metadata = checkpoint.read(checkpoint.resolve("embedded"))
    base = tmp_path / "base.npz"
    merge = ["merge", "--base", base, "--delta", delta, "--output", tmp_path / "out.npz"]
    for name, detail in (("Transformer/encoder_norm/scale", "SHA-256"), ("embedding/kernel", "its embedding of")):
        changed = arrays | {name: arrays[name] * np.float32(1.001)}
        checkpoint.write(base, unflatten_dict(changed, sep="/"), metadata)
        assert run_ppvit(*merge) == 1
        (line,) = _lines(capsys)
        assert "is a delta for another base than" in line and detail in line and "give embedded" in line
    tensors, record = checkpoint.read(delta, delta=True)
    damaged = tmp_path / "damaged.npz"
    lost = [{name: array for name, array in tensors.items() if name != "head/bias"}]
    lost.append(tensors | {"embedding/bias": arrays["embedding/bias"]})
    lost.append(tensors | {"head/kernel": tensors["head/kernel"][:-1]})
    lost.append(tensors | {"Transformer/encoderblock_0/MlpBlock_3/Dense_0/lora_b": np.zeros((2, 2))})
    for content in lost:
        checkpoint.write(damaged, unflatten_dict(content, sep="/"), record)
        command = ["merge", "--base", "embedded", "--delta", damaged, "--output", tmp_path / "out.npz"]
        assert run_ppvit(*command) == 1
        (line,) = _lines(capsys)
        assert "it is damaged" in line or "do not fit the model" in line
    base.unlink()
    assert run_ppvit(*merge) == 1
    assert "base.npz" in _lines(capsys)[0]
    checkpoint.write(base, unflatten_dict(arrays, sep="/"), metadata)
    assert run_ppvit("merge", "--base", base, "--delta", base, "--output", tmp_path / "out.npz") == 1
    assert "is a whole model, and no delta" in _lines(capsys)[0]
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.slow
def test_the_cloud_hands_back_a_delta_and_the_owner_restores_it_from_either_base(tmp_path, capsys):
    key = make_key(tmp_path)
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for number in range(count):
            path = tmp_path / "images" / split / f"{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    encrypt = ["encrypt", "--key", key, "--input", tmp_path / "images", "--output", tmp_path / "encrypted"]
    assert run_ppvit(*encrypt, "--image-size", 16, "--patch-size", 8) == 0
    adapt = ["adapt", "--key", key, "--checkpoint", "embedded", "--image-size", 16]
    assert run_ppvit(*adapt, "--output", tmp_path / "adapted.npz") == 0
    fields = {
        "model": "ViT-Micro/8",
        "image_size": 16,
        "checkpoint": tmp_path / "adapted.npz",
        "data.dir": tmp_path / "encrypted",
        "epochs": 1,
        "batch_size": 4,
        "eval_batch_size": 4,
        "tensorboard": False,
        "tuning.method": "lora",
        "optimizer.learning_rate": 0.05,
    }
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    experiment.run(load_config("configs/cloud.py", overrides), tmp_path / "run")
    delta = tmp_path / "run" / "checkpoint.npz"
    # LoRA of rank 8 on the queries and values of six layers of width 128, and a head for two classes.
    values = 6 * 2 * (128 * 8 + 8 * 128) + 2 * 128 + 2
    assert delta.stat().st_size < 4 * values + 20_000
    restored = []
    for name, base in (("adapted", tmp_path / "adapted.npz"), ("plain", "embedded")):
        output = tmp_path / f"{name}_restored.npz"
        command = ["restore", "--key", key, "--base", base, "--checkpoint", delta, "--output", output]
        assert run_ppvit(*command) == 0, capsys.readouterr().err
        restored.append(checkpoint.read(output))
    assert_same_tree(restored[0][0], restored[1][0])
    assert restored[0][1] == restored[1][1]
    # The adapted whole model of the cloud is restored to the same.
    whole = tmp_path / "whole.npz"
    assert run_ppvit("merge", "--base", tmp_path / "adapted.npz", "--delta", delta, "--output", whole) == 0
    again = ["restore", "--key", key, "--checkpoint", whole, "--output", tmp_path / "again.npz"]
    assert run_ppvit(*again) == 0
    assert_same_tree(checkpoint.read(tmp_path / "again.npz")[0], restored[0][0])
    # A base that has lost its record, and is adapted with another key, is not taken for the plain model.
    other = make_key(tmp_path, 7)
    assert run_ppvit(*adapt[:2], other, *adapt[3:], "--output", tmp_path / "other.npz") == 0
    capsys.readouterr()
    arrays, metadata = checkpoint.read(tmp_path / "other.npz")
    lost = dataclasses.replace(metadata, encryption="none", key_fingerprint=None)
    for name, record in (("other", metadata), ("lost", lost)):
        checkpoint.write(tmp_path / f"{name}.npz", unflatten_dict(arrays, sep="/"), record)
        command = ["restore", "--key", key, "--base", tmp_path / f"{name}.npz", "--checkpoint", delta]
        assert run_ppvit(*command, "--output", tmp_path / "no.npz") == 1
        (line,) = _lines(capsys)
        assert ("key fingerprint" if name == "other" else "give the adapted model as --base") in line
