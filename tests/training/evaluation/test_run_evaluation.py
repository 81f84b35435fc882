"""Runs with validation images: measures of each epoch, best weights, early end, kills, and several labels."""

import dataclasses
import json
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.tiny import assert_close_tree, assert_same_tree, random_dataset, random_params, tiny_model

from ppvit_jax import checkpoint
from ppvit_jax.adaptation import adapt, restore
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.config import default_config
from ppvit_jax.data.source import ArraySource, Dataset
from ppvit_jax.data.validation import add_validation
from ppvit_jax.encryption.blockwise import make_secret
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey
from ppvit_jax.training.evaluation.best import BestWeights
from ppvit_jax.training.evaluation.files import read_evaluation
from ppvit_jax.training.inference import compute_logits
from ppvit_jax.training.loop import Run, train
from ppvit_jax.training.matching import PLAIN
from ppvit_jax.training.results import read_history
from ppvit_jax.training.workdir import Workdir

MODEL = tiny_model()


def _config(**fields):
    config = default_config()
    values = {"encryption": "none", "batch_size": 8, "eval_batch_size": 4, "epochs": 4, "tensorboard": False}
    config.update({**values, **fields})
    config.optimizer.learning_rate = 0.05
    return config


def _dataset() -> Any:
    """Returns images whose classes mean little, so that the validation loss rises after some epochs."""
    dataset: Any = random_dataset(train=32)
    labels = np.random.default_rng(1).permutation(dataset.train.labels)
    return add_validation(dataclasses.replace(dataset, train=ArraySource(dataset.train.images, labels)), "0.25", 0)


def _train(workdir, config, dataset=None) -> Any:
    dataset = dataset or _dataset()
    return train(
        Run(config, dataset, MODEL, random_params(MODEL), {}, None, Metadata(config.model, 16), PLAIN), workdir
    )


def _tuned(workdir):
    return checkpoint.read(workdir / "checkpoint.npz")[0]


def _read(workdir) -> Any:
    return read_evaluation(workdir)


def _epochs(workdir) -> list[Any]:
    return [*read_history(workdir, "epoch")]


def _without_times(workdir):
    lines = [{**line, "images_per_second": None} for line in read_history(workdir)]
    return lines, json.loads((workdir / "result.json").read_text()) | {"images_per_second": None}


BEST = {"best_by": "val_loss", "patience": 2}


@pytest.fixture(scope="module")
def last(tmp_path_factory):
    """Trains with validation images, and hands over the last weights; returns the workdir."""
    workdir = tmp_path_factory.mktemp("last")
    _train(workdir, _config())
    return workdir


@pytest.fixture(scope="module")
def best(tmp_path_factory):
    """Trains until the patience ends, and hands over the best weights; returns the workdir."""
    workdir = tmp_path_factory.mktemp("best")
    _train(workdir, _config(epochs=12, **BEST))
    return workdir


@pytest.mark.slow
def test_epochs_are_evaluated_on_the_validation_images_and_the_end_on_the_test_images(last):
    lines, dataset = _epochs(last), _dataset()
    assert len(lines) == 4 and not [name for line in lines for name in line if name.startswith("test")]
    assert lines[0]["val_examples"] == len(dataset.validation)
    names = {"loss", "accuracy", "macro_accuracy", "calibration_error", "examples"}
    assert {name for name in lines[0] if name.startswith("val_")} == {f"val_{name}" for name in names}
    result = json.loads((last / "result.json").read_text())
    logits = np.asarray(compute_logits(_tuned(last), dataset.test.images))
    accuracy = float((logits.argmax(1) == dataset.test.labels).mean())
    assert result["test_accuracy"] == result["best_test_accuracy"] == pytest.approx(accuracy)
    assert result["test_examples"] == len(dataset.test)
    assert result["measures"]["validation"]["loss"] == lines[-1]["val_loss"]
    assert result["measures"]["test"]["accuracy"] == result["test_accuracy"]
    assert "best_epoch" not in result and not (last / "best").exists()
    content, confusion = _read(last)
    assert content["metrics"]["accuracy"] == result["test_accuracy"] and confusion.sum() == 10
    assert content["origin"]["split"] == "test"


@pytest.mark.slow
def test_the_best_weights_are_handed_over_and_the_run_ends_early(best, capsys):
    lines, result = _epochs(best), json.loads((best / "result.json").read_text())
    losses = [line["val_loss"] for line in lines]
    chosen = int(np.argmin(losses)) + 1
    assert chosen < len(lines) < 12, losses
    assert (result["best_by"], result["best_epoch"], result["best_value"]) == ("val_loss", chosen, min(losses))
    assert result["stopped_early"] and (result["epochs"], len(lines)) == (chosen + 2, chosen + 2)
    assert result["steps"] == lines[-1]["step"]
    dataset, tuned = _dataset(), _tuned(best)
    logits = np.asarray(compute_logits(tuned, dataset.validation.images), np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    log_shares = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    loss = -log_shares[np.arange(len(logits)), dataset.validation.labels].mean()
    assert loss == pytest.approx(min(losses), rel=1e-5)
    assert not (best / "best").exists()


@pytest.mark.slow
def test_a_run_without_patience_trains_every_epoch(tmp_path, best):
    result = _train(tmp_path, _config(epochs=12, best_by="val_loss"))
    assert result["epochs"] == 12 and "stopped_early" not in result
    losses = [line["val_loss"] for line in _epochs(tmp_path)]
    assert np.argmin(losses) == len(_epochs(best)) - 3
    assert_same_tree(_tuned(tmp_path), _tuned(best))


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint_steps", [0, 7])
@pytest.mark.parametrize("place", ["save", "write", "line", "finish"])
def test_a_killed_run_ends_like_one_that_was_not(tmp_path, best, monkeypatch, place, checkpoint_steps):
    """It is killed in every epoch, one after another."""
    config = _config(epochs=12, checkpoint_steps=checkpoint_steps, **BEST)
    places = {
        "save": (Workdir, "save"),
        "write": (BestWeights, "save"),
        "line": (Workdir, "log"),
        "finish": (Workdir, "finish"),
    }
    owner, name = places[place]
    original = getattr(owner, name)
    for stop in range(1, 6):
        calls = 0

        def kill(*arguments, stop=stop, **named):
            nonlocal calls
            calls += place != "line" or arguments[1] == "epoch"
            original(*arguments, **named)
            if calls == stop:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, kill)
            try:
                _train(tmp_path, config)
            except KeyboardInterrupt:
                continue
            break
    _train(tmp_path, config)
    assert_same_tree(_tuned(tmp_path), _tuned(best))
    assert _without_times(tmp_path) == _without_times(best)


def test_best_weights_are_pruned_only_if_no_saved_state_needs_them(tmp_path):
    config = _config(**BEST)
    chosen = BestWeights(tmp_path, config)
    lines: Any = [
        {"step": step, "epoch": step, "val_loss": loss} for step, loss in ((1, 3.0), (2, 2.0), (3, 2.5), (4, 1.0))
    ]
    weights: Any = {"params": {"a": np.ones(2, np.float32)}, "statistics": {}}
    for step in (1, 2, 4):
        chosen.save(step, weights)
    chosen.prune(lines, 3)
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == ["2.npz", "4.npz"]
    chosen.prune(lines, 0)
    assert len(list((tmp_path / "best").iterdir())) == 2
    chosen.prune(lines, 4)
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["4.npz"]
    assert chosen.find(lines)["step"] == 4 and not chosen.is_over(lines)
    later: Any = [{**lines[0], "step": 5}, {**lines[3], "step": 6}]
    assert chosen.is_over([*lines, *later])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"best_by": "val_roc_auc"}, "it is for two classes, and there are 3: use another measure, such as val_loss"),
        ({"best_by": "val_top5_accuracy"}, "it is for six classes or more, and there are 3"),
        ({"task": "multi_label"}, "have one label each: set config.task=single_label, or give other images"),
    ],
)
def test_a_measure_or_task_that_does_not_fit_the_images_is_refused(tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        _train(tmp_path, _config(**fields))


def _several_labels(validation=""):
    """Returns images whose upper and lower half are bright or dark, and a label for each bright half."""
    random = np.random.default_rng(0)
    parts = []
    for count in (64, 32):
        labels = random.integers(0, 2, (count, 3)).astype(np.uint8)
        images = random.integers(0, 60, (count, 16, 16, 3)).astype(np.uint8)
        images[:, :8] += 150 * labels[:, :1, None, None]
        images[:, 8:] += 150 * labels[:, 1:2, None, None]
        labels[:, 2] = labels[:, 0] & labels[:, 1]
        parts.append(ArraySource(images, labels))
    return add_validation(Dataset("halves", parts[0], parts[1], ("upper", "lower", "both")), validation, 0)


@pytest.mark.slow
def test_a_model_learns_several_labels_per_image(tmp_path):
    config = _config(task="multi_label", epochs=13, best_by="val_loss")
    result = _train(tmp_path, config, _several_labels("0.25"))
    # A guess has all three labels right for a quarter of the images.
    assert result["test_accuracy"] > 0.6
    assert result["measures"]["test"]["mean_average_precision"] > 0.95
    first, final = (_epochs(tmp_path)[place] for place in (0, -1))
    assert final["val_loss"] < first["val_loss"] and "val_label_accuracy" in final
    content, confusion = _read(tmp_path)
    assert content["task"] == "multi_label" and confusion is None
    with pytest.raises(UserError, match=r"have any number of labels each: set config\.task=multi_label"):
        _train(tmp_path / "other", _config(), _several_labels())


@pytest.mark.slow
def test_several_labels_are_evaluated_on_the_test_images_without_validation(tmp_path):
    result = _train(tmp_path, _config(task="multi_label", epochs=2), _several_labels())
    line = _epochs(tmp_path)[-1]
    assert line["test_loss"] == result["test_loss"] == result["measures"]["test"]["loss"]
    assert result["measures"].keys() == {"test"}


@pytest.mark.slow
def test_wrong_label_columns_are_refused(tmp_path):
    dataset = dataclasses.replace(_several_labels(), class_names=("upper", "lower"))
    with pytest.raises(UserError, match=r"shape \(64, 3\), but there are 2 class names"):
        _train(tmp_path, _config(task="multi_label"), dataset)


def _encrypted_run(workdir, task, key):
    """Trains in float64 with validation images and the best weights, plain for key=None, else adapted and encrypted."""
    model = tiny_model(dtype="float64")
    config = _config(task=task, epochs=8, best_by="val_loss", patience=2, dtype="float64", encryption="bs+ps")
    params, secret, encryption = random_params(model, dtype=np.float64), None, "none"
    if key is not None:
        permutations = key.permutations("bs+ps", image_size=16, patch_size=4)
        params, secret, encryption = adapt(params, permutations), make_secret(permutations, 16, 16, 4), "bs+ps"
    dataset = _several_labels("0.25") if task == "multi_label" else _dataset()
    images = dataclasses.replace(PLAIN, encryption=encryption)
    train(Run(config, dataset, model, params, {}, secret, Metadata(config.model, 16, encryption), images), workdir)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_adapted_on_encrypted_images_chooses_the_weights_of_the_plain_run(tmp_path, task):
    key = SecretKey(bytes(range(32)))
    with jax.enable_x64(True):
        _encrypted_run(tmp_path / "plain", task, None)
        _encrypted_run(tmp_path / "cloud", task, key)
    permutations = key.permutations("bs+ps", image_size=16, patch_size=4)
    plain_tuned, tuned = (unflatten_dict(_tuned(tmp_path / side), sep="/") for side in ("plain", "cloud"))
    assert_close_tree(restore(tuned, permutations), plain_tuned, 1e-9)
    plain, cloud = (_without_times(tmp_path / side) for side in ("plain", "cloud"))
    assert plain[1]["best_epoch"] == cloud[1]["best_epoch"] and plain[1]["epochs"] == cloud[1]["epochs"]
    for one, other in zip(plain[0], cloud[0], strict=True):
        values = {name: value for name, value in one.items() if name.startswith("val_")}
        assert values == pytest.approx({name: other[name] for name in values}, abs=1e-9)
    contents = [_read(tmp_path / side)[0] for side in ("plain", "cloud")]
    assert contents[0]["metrics"] == pytest.approx(contents[1]["metrics"], abs=1e-9, nan_ok=True)
