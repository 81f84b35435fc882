"""Training of models with batch statistics, penalties and randomness."""

import dataclasses
import functools
import json
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.command import ROOT, finish, make_key, start
from helpers.tiny import assert_close_tree, assert_same_tree, flatten, random_dataset, random_images, random_params
from scipy.special import erf

from ppvit_jax import checkpoint, models
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.config import check, default_config, make_model
from ppvit_jax.errors import UserError
from ppvit_jax.training import experiment
from ppvit_jax.training.loop import Run, train
from ppvit_jax.training.matching import PLAIN
from ppvit_jax.training.step import compile_steps
from ppvit_jax.training.workdir import Workdir, read_history

NAMES = {"convmixer": "ConvMixer-16/1", "pyramidnet": "PyramidNet-8/12"}


def _config(kind, network="ele", **fields):
    config = default_config()
    config.checkpoint = ""
    config.model = NAMES[kind]
    config.model_options.update(
        {"patch_size": 4, "kernel_size": 3, "adaptation_network": network if kind == "pyramidnet" else "none"}
    )
    config.image_size = 16
    config.encryption = "none"
    config.batch_size = 8
    config.eval_batch_size = 4
    config.epochs = 2
    config.log_steps = 1
    config.optimizer.learning_rate = 0.02
    config.tensorboard = False
    config.update(fields)
    return check(config)


@functools.cache
def _initial(model_config):
    model = models.build(model_config)
    init = jax.jit(lambda rng: (model.init(rng), model.init_statistics(rng)))
    return jax.device_get(init(jax.random.key(0)))


def _read(workdir):
    arrays, statistics = checkpoint.split(checkpoint.read(workdir / "checkpoint.npz")[0])
    return unflatten_dict(arrays, sep="/"), statistics


@pytest.fixture(scope="module", params=NAMES)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def run(kind, tmp_path_factory):
    """A function that trains in a workdir, and the workdir of a complete run."""
    config = _config(kind)
    model_config = make_model(config, 3)
    params, statistics = _initial(model_config)

    def run(workdir):
        # Saved at each step, whether it is stopped or not.
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
    model_config = make_model(_config(kind), 3)
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
    """Returns the parameters and statistics that a run begins to train with."""
    started = []
    monkeypatch.setattr(experiment, "train", lambda run, workdir: started.append(run))
    experiment.run(config, workdir, random_dataset())
    (run,) = started
    return run.params, run.statistics


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_checkpoint_is_read_again_to_the_same_logits(kind, run, tmp_path, monkeypatch, dtype):
    _, workdir, _ = run
    config = _config(kind, checkpoint=str(workdir / "checkpoint.npz"), head="keep", dtype=dtype)
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
    config = _config(kind, checkpoint=str(workdir / "checkpoint.npz"))
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
        experiment.run(_config(kind, checkpoint=str(path), head="keep"), tmp_path / "workdir", random_dataset())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "workdir").exists()


def _batch(count, seed=0):
    labels = np.random.default_rng(seed).integers(0, 3, count).astype(np.int32)
    return {"image": random_images(count, 16, seed), "label": labels}


def _step(model_config, config, params, statistics, batch):
    """The state after one step, and the reported loss."""
    steps = compile_steps(model_config, config, 10)
    state = steps.init_state(jax.tree.map(np.copy, params), jax.tree.map(np.copy, statistics))
    state = jax.device_get(steps.train_step(state, batch, jax.random.key(0), None))
    return state, float(state["metrics"]["loss"] / state["metrics"]["count"])


def test_accumulation_moves_statistics_once_a_part_and_averages_the_gradients():
    config = _config("convmixer", accumulation=4)
    config.optimizer.update({"momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.5})
    model_config = make_model(config, 3)
    params, batch = random_params(model_config), _batch(12)
    model, parts = models.build(model_config), [slice(k, None, 4) for k in range(4)]
    _, statistics = _initial(model_config)
    state, loss = _step(model_config, config, params, statistics, batch)

    # The first layer's by hand: each part is every fourth image.
    patches = (batch["image"] / 127.5 - 1).reshape(12, 4, 4, 4, 4, 3).swapaxes(2, 3).reshape(12, 16, 48)
    x = patches @ params["embedding"]["kernel"].reshape(48, 16) + params["embedding"]["bias"]
    x = x * (1 + erf(x / np.sqrt(2))) / 2
    mean, variance = np.zeros(16), np.ones(16)
    for part in parts:
        mean = 0.9 * mean + 0.1 * x[part].mean((0, 1))
        variance = 0.9 * variance + 0.1 * x[part].reshape(-1, 16).var(0, ddof=1)
    moved = state["statistics"]["embedding_norm"]
    np.testing.assert_allclose(moved["mean"], mean, atol=1e-5)
    np.testing.assert_allclose(moved["variance"], variance, atol=1e-5)

    @jax.jit
    @jax.grad
    def gradient(params, images, labels):
        logits = model.train(params, statistics, images / 127.5 - 1, jax.random.key(0)).logits
        return -jax.nn.log_softmax(logits)[np.arange(3), labels].mean()

    gradients = [gradient(params, batch["image"][part].astype(np.float32), batch["label"][part]) for part in parts]
    expected = jax.tree.map(lambda p, *g: p - 0.5 * sum(g) / 4, params, *gradients)
    assert_close_tree(state["params"], expected, 1e-4)
    assert np.isfinite(loss)


def test_penalties_enter_the_gradient_once_and_not_the_reported_loss():
    config = _config("convmixer", accumulation=2)
    config.model_options.adaptive_matrix = "free"
    config.optimizer.update({"momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.5})
    shape: Any = make_model(config, 3)
    with_penalty = dataclasses.replace(shape, penalty_weight=2.0)
    without = dataclasses.replace(with_penalty, penalty_weight=0.0)
    params = random_params(with_penalty)
    # Statistics do not depend on the matrix.
    _, statistics = _initial(make_model(_config("convmixer"), 3))
    outcomes = [_step(m, config, params, statistics, _batch(8)) for m in (with_penalty, without)]
    np.testing.assert_allclose(outcomes[0][1], outcomes[1][1], rtol=1e-6)
    penalised, plain = (state["params"] for state, _ in outcomes)
    matrix = np.float64(params["adaptive_matrix"])
    norms = [np.linalg.norm(matrix, axis=axis, keepdims=True) for axis in (0, 1)]
    gradient = (2 * np.sign(matrix) - matrix / norms[0] - matrix / norms[1]) / matrix.size
    difference = penalised.pop("adaptive_matrix") - plain.pop("adaptive_matrix")
    np.testing.assert_allclose(difference, -0.5 * 2.0 * gradient, atol=1e-5)
    assert_close_tree(penalised, plain, 1e-5)


def test_the_randomness_of_shake_drop_is_the_seeds_and_differs_by_step():
    config = _config("pyramidnet", network="none", freeze=(".*",))
    model_config = make_model(config, 3)
    params, statistics = _initial(model_config)
    steps, batch = compile_steps(model_config, config, 10), _batch(8)

    def losses(seed):
        # Nothing but ShakeDrop changes from step to step: parameters are frozen and the batch is the same.
        state = steps.init_state(jax.tree.map(np.copy, params), jax.tree.map(np.copy, statistics))
        sums = [0.0]
        for _ in range(8):
            state = steps.train_step(state, batch, jax.random.key(seed), None)
            sums.append(float(state["metrics"]["loss"]))
        assert_same_tree(jax.device_get(state["params"]), params)
        return np.round(np.diff(sums), 3).tolist()

    first = losses(0)
    assert losses(0) == first != losses(1)
    # All three gates are on in 28% of the steps, whose losses agree.
    assert len(set(first)) >= 4


def test_four_devices_share_the_statistics_of_the_global_batch(tmp_path):
    """Randomness, penalties and the statistics of single blocks are those of one device, too."""
    arguments = [
        f"--config={ROOT / 'configs' / 'demo.py'}",
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
