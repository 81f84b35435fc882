"""Training of models with batch statistics, penalties and randomness."""

import json

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.command import ROOT, finish, make_key, start
from helpers.small_networks import NAMES, initial, small_config
from helpers.tiny import assert_close_tree, assert_same_tree, flatten, random_dataset

from ppvit_jax import checkpoint, models
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.config import make_model
from ppvit_jax.errors import UserError
from ppvit_jax.training import experiment
from ppvit_jax.training.loop import Run, train
from ppvit_jax.training.matching import PLAIN
from ppvit_jax.training.results import read_history
from ppvit_jax.training.workdir import Workdir

pytestmark = pytest.mark.slow


def _read(workdir):
    arrays, statistics = checkpoint.split(checkpoint.read(workdir / "checkpoint.npz")[0])
    return unflatten_dict(arrays, sep="/"), statistics


@pytest.fixture(scope="module", params=NAMES)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def run(kind, tmp_path_factory):
    """Returns a function that trains in a workdir, the workdir of a complete run, and the initial model."""
    config = small_config(kind)
    model_config = make_model(config, 3)
    params, statistics = initial(model_config)

    def run(workdir):
        # Stopped and complete runs alike save every step.
        config.checkpoint_steps = 1
        metadata = Metadata(config.model, 16)
        return train(Run(config, random_dataset(), model_config, params, statistics, None, metadata, PLAIN), workdir)

    run(workdir := tmp_path_factory.mktemp(kind))
    return run, workdir, (params, statistics)


def _test_images():
    source = random_dataset().test
    return np.stack([source.fetch(i) for i in range(len(source))]), source.labels


def _evaluate(model_config, params, statistics):
    images, labels = _test_images()
    apply = jax.jit(models.build(model_config).apply)
    logits = np.asarray(apply(params, (images / 127.5 - 1).astype(np.float32), statistics), np.float64)
    log_likelihood = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return logits, -log_likelihood[range(len(labels)), labels].mean(), (logits.argmax(1) == labels).mean()


def test_statistics_move_in_training_and_are_used_in_evaluation(kind, run):
    _, workdir, (initial_params, initial_statistics) = run
    params, statistics = _read(workdir)
    for before, after in ((initial_params, params), (initial_statistics, statistics)):
        before, after = flatten(before), flatten(after)
        assert before.keys() == after.keys()
        for name in before:
            assert np.isfinite(after[name]).all() and not np.array_equal(after[name], before[name]), name
    model_config = make_model(small_config(kind), 3)
    result = json.loads((workdir / "result.json").read_text())
    _, loss, accuracy = _evaluate(model_config, params, statistics)
    assert result["test_accuracy"] == accuracy
    np.testing.assert_allclose(result["test_loss"], loss, rtol=1e-4)
    assert abs(_evaluate(model_config, params, initial_statistics)[1] / loss - 1) > 0.01


@pytest.mark.parametrize("stop_after", [2, 4])
def test_a_run_that_was_stopped_ends_with_the_same_parameters_and_statistics(run, tmp_path, monkeypatch, stop_after):
    train_in, complete, _ = run
    save = Workdir.save

    def save_and_stop(self, step, state):
        save(self, step, state)
        if step == stop_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Workdir, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path)
    monkeypatch.undo()
    assert not (tmp_path / "checkpoint.npz").exists()
    train_in(tmp_path)
    for resumed, whole in zip(_read(tmp_path), _read(complete), strict=True):
        assert_same_tree(resumed, whole)
    stopped, whole = (read_history(folder) for folder in (tmp_path, complete))
    for line in stopped + whole:
        line.pop("images_per_second")
    assert stopped == whole


def _started_with(monkeypatch, config, workdir):
    """Returns the initial parameters and statistics of a run."""
    started = []
    monkeypatch.setattr(experiment, "train", lambda run, workdir: started.append(run))
    experiment.run(config, workdir, random_dataset())
    (run,) = started
    return run.params, run.statistics


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_checkpoint_is_read_again_to_the_same_logits(kind, run, tmp_path, monkeypatch, dtype):
    _, workdir, _ = run
    config = small_config(kind, checkpoint=str(workdir / "checkpoint.npz"), head="keep", dtype=dtype)
    params, statistics = _started_with(monkeypatch, config, tmp_path)
    for again, written in zip((params, statistics), _read(workdir), strict=True):
        assert_same_tree(again, written)
        assert {leaf.dtype for leaf in flatten(again).values()} == {np.dtype(dtype)}
    if dtype == "float32":
        model_config = make_model(config, 3)
        logits, _, accuracy = _evaluate(model_config, params, statistics)
        np.testing.assert_array_equal(logits, _evaluate(model_config, *_read(workdir))[0])
        assert accuracy == json.loads((workdir / "result.json").read_text())["test_accuracy"]


def test_a_new_head_on_a_checkpoint_keeps_its_statistics(kind, run, tmp_path, monkeypatch):
    _, workdir, _ = run
    config = small_config(kind, checkpoint=str(workdir / "checkpoint.npz"))
    params, statistics = _started_with(monkeypatch, config, tmp_path)
    assert not np.any(params["head"]["kernel"])
    written_params, written_statistics = _read(workdir)
    assert_same_tree(statistics, written_statistics)
    del params["head"], written_params["head"]
    assert_same_tree(params, written_params)


@pytest.mark.parametrize("change", ["another shape", "one missing", "all missing", "one too many"])
def test_statistics_that_do_not_fit_are_refused_with_one_line(kind, run, tmp_path, change):
    params, statistics = _read(run[1])
    arrays = flatten(statistics)
    first = min(arrays)
    if change == "another shape":
        arrays[first] = arrays[first][..., :-1]
    elif change == "one missing":
        del arrays[first]
    elif change == "all missing":
        arrays = {}
    else:
        arrays["other/mean"] = np.zeros(3, np.float32)
    path = tmp_path / "changed.npz"
    checkpoint.write(path, checkpoint.join(params, unflatten_dict(arrays, sep="/")), Metadata(NAMES[kind], 16))
    with pytest.raises(UserError, match=r"changed.npz does not fit the model: its statistics are of another") as caught:
        experiment.run(small_config(kind, checkpoint=str(path), head="keep"), tmp_path / "workdir", random_dataset())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "workdir").exists()


def test_four_devices_share_the_statistics_of_the_global_batch(tmp_path):
    """Randomness, penalties and the statistics of single blocks agree with one device, too."""
    arguments = [
        f"--config={ROOT / 'configs' / 'digits.py'}",
        "--config.checkpoint=",
        f"--config.model={NAMES['pyramidnet']}",
        "--config.model_options.adaptation_network=ele",
        "--config.image_size=16",
        "--config.encryption=ele",
        "--config.block_size=4",
        "--config.adapt=False",
        "--config.augmentation=flip+crop",
        "--config.dtype=float64",
        "--config.data.train_examples=32",
        "--config.data.test_examples=30",
        "--config.batch_size=8",
        "--config.eval_batch_size=8",
        "--config.epochs=1",
        "--config.tensorboard=False",
        f"--config.key_file={make_key(tmp_path)}",
    ]
    processes = [
        start([*arguments, f"--workdir={tmp_path / name}"], XLA_FLAGS=f"--xla_force_host_platform_device_count={count}")
        for count, name in ((1, "one"), (4, "four"))
    ]
    for status, _, errors in finish(*processes):
        assert status == 0, errors
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "four")]
    assert [result["device"] for result in results] == ["1 x cpu", "4 x cpu"]
    assert results[0]["test_accuracy"] == results[1]["test_accuracy"]
    np.testing.assert_allclose(results[1]["test_loss"], results[0]["test_loss"], rtol=1e-6)
    (params, statistics), (params_of_four, statistics_of_four) = (_read(tmp_path / name) for name in ("one", "four"))
    assert flatten(statistics)["stem_norm/mean"].dtype == np.float64
    assert_close_tree(params_of_four, params, 1e-9)
    assert_close_tree(statistics_of_four, statistics, 1e-9)
