import contextlib
import dataclasses
import importlib
import json
import operator
import shutil

import jax
import numpy as np
import pytest
from helpers.tiny import (
    assert_close_tree,
    assert_same_tree,
    compiled,
    flatten,
    random_dataset,
    random_params,
    tiny_model,
)

from ppvit_jax import checkpoint, models
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.config import default_config
from ppvit_jax.data.source import ArraySource, StreamSource
from ppvit_jax.errors import UserError
from ppvit_jax.training import loop
from ppvit_jax.training.loop import Run, train
from ppvit_jax.training.matching import PLAIN
from ppvit_jax.training.results import read_history
from ppvit_jax.training.workdir import Workdir

MODEL = tiny_model()


def _config(**fields):
    config = default_config()
    config.encryption = "none"
    config.batch_size = 8
    config.eval_batch_size = 4
    config.epochs = 2
    config.log_steps = 1
    config.optimizer.learning_rate = 0.05
    config.tensorboard = False
    config.update(fields)
    return config


def _train(workdir, config=None, model=MODEL, params=None, dataset=None, fingerprint=None):
    config = config or _config()
    params = random_params(model) if params is None else params
    dataset = dataset or random_dataset()
    images = dataclasses.replace(PLAIN, key_fingerprint=fingerprint)
    return train(Run(config, dataset, model, params, {}, None, Metadata(config.model, 16), images), workdir)


def _tuned(workdir):
    return checkpoint.read(workdir / "checkpoint.npz")[0]


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """Trains a run to its end; returns its workdir."""
    workdir = tmp_path_factory.mktemp("complete")
    _train(workdir, _config(tensorboard=True))
    return workdir


@pytest.mark.slow
def test_a_run_leaves_its_files(complete):
    result = json.loads((complete / "result.json").read_text())
    expected = {
        "dataset": "noise",
        "model": "ViT-B/16",
        "encryption": "none",
        "adapt": False,
        "seed": 0,
        "steps": 6,
        "epochs": 2,
        "test_examples": 10,
        "key_fingerprint": None,
    }
    assert expected.items() <= result.items()
    assert {"train_loss", "test_loss", "test_accuracy", "images_per_second"} <= result.keys()
    assert result["versions"]["jax"] == jax.__version__
    epochs = read_history(complete, "epoch")
    assert [(line["epoch"], line["step"], line["test_examples"]) for line in epochs] == [(1, 3, 10), (2, 6, 10)]
    assert epochs[-1]["test_accuracy"] == result["test_accuracy"]
    assert [line["step"] for line in read_history(complete, "step")] == [1, 2, 3, 4, 5, 6]
    assert json.loads((complete / "config.json").read_text())["config"]["batch_size"] == 8
    assert list(complete.glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_the_result_is_that_of_the_tuned_checkpoint_on_every_test_image(complete):
    """Ten test images are in batches of four, so the padding of the last batch must not count."""
    params = checkpoint.to_params(_tuned(complete), MODEL, keep_head=True)
    source = random_dataset().test
    images = np.stack([source.fetch(i) for i in range(10)])
    inputs = (images / 127.5 - 1).astype(np.float32)
    logits = np.asarray(compiled(models.build(MODEL)).apply(params, inputs), np.float64)
    log_likelihood = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    result = json.loads((complete / "result.json").read_text())
    assert result["test_accuracy"] == (logits.argmax(1) == source.labels).mean()
    np.testing.assert_allclose(result["test_loss"], -log_likelihood[range(10), source.labels].mean(), rtol=1e-5)


@pytest.mark.slow
def test_a_complete_run_is_not_trained_again(complete, capsys):
    written = {path: path.stat().st_mtime_ns for path in complete.rglob("*.*")}
    result = _train(complete, _config(tensorboard=True))
    assert result == json.loads((complete / "result.json").read_text())
    assert "nothing to do" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in complete.rglob("*.*") if path in written} == written


@pytest.mark.slow
def test_a_workdir_of_another_configuration_or_key_is_refused(complete):
    before = (complete / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"another configuration \(config.epochs was 2 and is 3; config.seed was 0 and"):
        _train(complete, _config(epochs=3, seed=1))
    with pytest.raises(UserError, match="key_fingerprint was None and is '00ff'"):
        _train(complete, fingerprint="00ff")
    assert (complete / "config.json").read_bytes() == before
    (damaged := complete.parent / "damaged").mkdir()
    (damaged / "config.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        _train(damaged)


@pytest.mark.slow
def test_learns_from_scratch(tmp_path):
    config = _config(epochs=8)
    config.optimizer.update({"name": "adamw", "learning_rate": 0.003})
    params = jax.device_get(compiled(models.build(MODEL)).init(jax.random.key(0)))
    result = _train(tmp_path, config, params=params, dataset=random_dataset(train=64, test=30))
    assert result["test_accuracy"] > 0.9


@pytest.mark.slow
def test_the_order_of_the_images_is_the_seeds(tmp_path):
    losses = [_train(tmp_path / str(i), _config(seed=seed))["train_loss"] for i, seed in enumerate((0, 0, 1))]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.slow
def test_frozen_parameters_stay_and_the_others_move(tmp_path):
    _train(tmp_path, _config(freeze=("Transformer/.*", "embedding/kernel")))
    tuned = _tuned(tmp_path)
    for name, before in flatten(random_params(MODEL)).items():
        same = (tuned[name] == before).all()
        assert same == (name.startswith("Transformer/") or name == "embedding/kernel"), name


@pytest.mark.slow
def test_images_that_lie_on_the_device_train_the_same_bit_for_bit(tmp_path, complete):
    config = _config()
    config.data.on_device = "True"
    _train(tmp_path, config)
    assert_same_tree(_tuned(tmp_path), _tuned(complete))
    ours, theirs = (read_history(folder, "epoch")[-1]["test_loss"] for folder in (tmp_path, complete))
    assert ours == theirs


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_accumulation_changes_memory_and_nothing_else(tmp_path, optimizer):
    with jax.enable_x64(True):
        model = tiny_model(dtype="float64")
        params = random_params(model, dtype=np.float64)
        for parts in (1, 4):
            config = _config(dtype="float64", accumulation=parts)
            config.optimizer.update({"name": optimizer, "learning_rate": 0.01})
            _train(tmp_path / str(parts), config, model, params)
    assert_close_tree(_tuned(tmp_path / "4"), _tuned(tmp_path / "1"), 1e-9)
    one, four = (read_history(tmp_path / parts, "epoch") for parts in ("1", "4"))
    np.testing.assert_allclose([e["train_loss"] for e in four], [e["train_loss"] for e in one], rtol=1e-6)


@pytest.mark.slow
def test_bfloat16_products_train_float32_parameters(tmp_path):
    results = {}
    for dtype in ("float32", "bfloat16"):
        results[dtype] = _train(tmp_path / dtype, _config(dtype=dtype), tiny_model(dtype=dtype))
    assert {array.dtype for array in _tuned(tmp_path / "bfloat16").values()} == {np.dtype("float32")}
    # bfloat16 has 8 bits of precision, so losses differ by some hundredths after six steps.
    np.testing.assert_allclose(results["bfloat16"]["train_loss"], results["float32"]["train_loss"], rtol=0.1)
    assert results["bfloat16"]["train_loss"] != results["float32"]["train_loss"]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run_with_one_line(tmp_path):
    config = _config()
    config.optimizer.learning_rate = 1e30
    with pytest.raises(UserError, match=r"training loss is (nan|inf).*learning_rate"):
        _train(tmp_path, config)
    assert not (tmp_path / "result.json").exists() and not (tmp_path / "checkpoint.npz").exists()


def test_sizes_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(UserError, match="24 training examples do not fill one batch of 32"):
        _train(tmp_path / "one", _config(batch_size=32))
    (file := tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use the workdir"):
        _train(file)


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [2, 4, 5])
def test_a_run_stopped_at_any_step_ends_like_one_that_was_not(tmp_path, complete, monkeypatch, stop_after):
    """This holds within an epoch, too: the saved state includes the sums of the metrics."""
    save = Workdir.save

    def save_and_stop(self, step, state):
        save(self, step, state)
        if step == stop_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Workdir, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path, _config(checkpoint_steps=1))
    monkeypatch.undo()
    # Add a line for a step that was not saved, and a line that was cut short.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "step", "step": stop_after + 1}) + "\n" + '{"kind": "st')
    _train(tmp_path, _config(checkpoint_steps=1))
    assert_same_tree(_tuned(tmp_path), _tuned(complete))
    assert _without_times(tmp_path)[0] == _without_times(complete)[0]


@pytest.mark.slow
def test_a_full_disk_loses_nothing_that_was_saved(tmp_path, complete, monkeypatch):
    real = shutil.disk_usage(tmp_path)
    free = iter([real.free, 1_000])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=next(free)))
    with pytest.raises(UserError, match=r"no room for the state at step 6 .* it needs .* MiB, and 0\.0 MiB are free"):
        _train(tmp_path)
    # The result alone proves nothing: a run from the start would give the same.
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]
    monkeypatch.undo()
    _train(tmp_path)
    assert_same_tree(_tuned(tmp_path), _tuned(complete))


@pytest.mark.slow
def test_an_image_that_cannot_be_read_costs_no_epoch(tmp_path, complete):
    """The run is evaluated first when it resumes, after the first epoch and after the last."""
    whole = random_dataset()

    def read(index):
        if index == 7:
            raise UserError("cannot read the image 7.png: replace it")
        return whole.test.fetch(index)

    broken = dataclasses.replace(whole, test=StreamSource(whole.test.labels, whole.test.image_shape, read))
    healed = dataclasses.replace(whole, test=StreamSource(whole.test.labels, whole.test.image_shape, whole.test.fetch))
    for dataset, checkpoint_steps, saved in ((broken, 100, "3"), (broken, 0, "3"), (healed, 0, "6")):
        config = _config(checkpoint_steps=checkpoint_steps)
        with pytest.raises(UserError, match="cannot read the image") if dataset is broken else contextlib.nullcontext():
            _train(tmp_path, config, dataset=dataset)
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [saved]
    assert_same_tree(_tuned(tmp_path), _tuned(complete))
    assert _without_times(tmp_path) == _without_times(complete)


@pytest.mark.slow
def test_a_run_killed_between_the_last_save_and_the_result_ends_the_same(tmp_path, complete, monkeypatch):
    for killed_in, checkpoint_steps in (("loop.test_batches", 0), ("log.Log.epoch", 4), ("loop._summarize", 0)):
        config = _config(checkpoint_steps=checkpoint_steps)
        with monkeypatch.context() as patch:
            patch.setattr(f"ppvit_jax.training.{killed_in}", _stop_at_step_6(tmp_path, killed_in))
            with pytest.raises(KeyboardInterrupt):
                _train(tmp_path / killed_in, config)
        assert [path.name for path in (tmp_path / killed_in / "checkpoints").iterdir()] == ["6"]
        assert not (tmp_path / killed_in / "result.json").exists()
        _train(tmp_path / killed_in, config)
        assert_same_tree(_tuned(tmp_path / killed_in), _tuned(complete))
        assert _without_times(tmp_path / killed_in) == _without_times(complete)


def _stop_at_step_6(folder, name):
    """Returns a function that is interrupted after step 6, and does what the function `name` does before it."""
    module, _, attribute = f"ppvit_jax.training.{name}".partition(".training.")[2].partition(".")
    original = operator.attrgetter(attribute)(importlib.import_module(f"ppvit_jax.training.{module}"))

    def function(*arguments):
        if read_history(folder / name)[-1]["step"] == 6:
            raise KeyboardInterrupt
        return original(*arguments)

    return function


def _without_times(workdir):
    """Returns metrics and result without times and devices."""
    lines = [{**line, "images_per_second": None} for line in read_history(workdir)]
    return lines, json.loads((workdir / "result.json").read_text()) | {"images_per_second": None}


@pytest.mark.slow
def test_an_update_that_is_not_finite_is_not_saved_even_if_it_is_the_last(tmp_path, monkeypatch):
    compile_steps = loop.compile_steps

    def spoil(*arguments):
        steps = compile_steps(*arguments)

        def train_step(state, *others):
            state = steps.train_step(state, *others)
            if int(state["step"]) == 6:
                state["params"]["head"]["bias"] = state["params"]["head"]["bias"].at[1].set(np.nan)
            return state

        return steps._replace(train_step=train_step)

    monkeypatch.setattr(loop, "compile_steps", spoil)
    with pytest.raises(UserError, match="some of the parameters are NaN or infinite at step 6, because the training"):
        _train(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]
    assert not (tmp_path / "result.json").exists() and not (tmp_path / "checkpoint.npz").exists()


@pytest.mark.slow
def test_another_data_set_is_refused_even_after_the_end(tmp_path, complete):
    images = random_dataset().train.images.copy()  # pyright: ignore[reportAttributeAccessIssue]
    images[5] = 255 - images[5]
    changed = dataclasses.replace(random_dataset(), train=ArraySource(images, random_dataset().train.labels))
    with pytest.raises(UserError, match=r"another data set \(dataset\.digest was \w{12}\.\.\. and is \w{12}\.\.\.\)"):
        _train(complete, _config(tensorboard=True), dataset=changed)
    # A workdir of an earlier version tells nothing but its number of steps.
    shutil.copytree(complete, tmp_path / "old")
    (tmp_path / "old" / "result.json").unlink()
    record = json.loads((tmp_path / "old" / "config.json").read_text())
    for name in ("dataset", "checkpoint_sha256", "versions"):
        del record[name]
    (tmp_path / "old" / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="was begun with 6 steps, and these images make 8"):
        _train(tmp_path / "old", _config(tensorboard=True), dataset=random_dataset(train=32))


@pytest.mark.slow
def test_an_old_workdir_is_continued_and_then_records_its_data_set(tmp_path, complete, capsys):
    shutil.copytree(complete, tmp_path / "old")
    (tmp_path / "old" / "result.json").unlink()
    record = json.loads((complete / "config.json").read_text())
    old = {name: record[name] for name in ("config", "encryption", "key_fingerprint", "metadata")}
    (tmp_path / "old" / "config.json").write_text(json.dumps(old))
    _train(tmp_path / "old", _config(tensorboard=True))
    assert "note: the run in" in capsys.readouterr().err
    assert json.loads((tmp_path / "old" / "config.json").read_text()) == record
    assert _without_times(tmp_path / "old") == _without_times(complete)


@pytest.mark.slow
def test_a_test_set_of_one_class_is_told_at_the_end(tmp_path, capsys):
    dataset = random_dataset()
    images = dataset.test.images[dataset.test.labels == 1]  # pyright: ignore[reportAttributeAccessIssue]
    dataset = dataclasses.replace(dataset, test=ArraySource(images, np.ones(len(images), np.int32)))
    for _ in range(2):
        (warning,) = _train(tmp_path, dataset=dataset)["warnings"]
        assert "test images are of the class 'class 1'" in warning
        assert f"warning: {warning}\n" in capsys.readouterr().err
