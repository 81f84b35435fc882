import functools
import io
import json
import subprocess
import sys
from typing import ClassVar

import jax
import numpy as np
import pytest
from helpers.needles import needles
from helpers.tiny import assert_same_tree, random_dataset, random_params, tiny_model

from ppvit_jax import checkpoint, keys
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.config import check, default_config
from ppvit_jax.errors import UserError
from ppvit_jax.training import experiment, writers
from ppvit_jax.training.loop import Run, train
from ppvit_jax.training.matching import PLAIN
from ppvit_jax.training.results import read_history
from ppvit_jax.training.workdir import Workdir
from ppvit_jax.training.writers import WRITERS, Writers, named

CONFIG = {"epochs": 2, "key_file": "/home/owner/hidden.key", "data": {"name": "cifar10", "dir": ""}, "freeze": []}


def _config(**fields):
    config = default_config()
    config.update({"checkpoint": "embedded", "model": "ViT-Micro/8", "image_size": 32, "epochs": 1, "log_steps": 1})
    config.update({"batch_size": 8, "eval_batch_size": 8, "tensorboard": False} | fields)
    return check(config)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Keeps wandb and MLflow on this machine, in `tmp_path`; returns the folder of MLflow's store."""
    pytest.importorskip("wandb")
    pytest.importorskip("mlflow")
    for name in ("WANDB_PROJECT", "WANDB_NAME", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    # The store in files needs no database, whose creation takes seconds.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    return tmp_path / "store"


def _read_wandb(folder):
    """Reads every run of the folder, in the order of time, with the reader of wandb."""
    from wandb.util import get_core_path

    runs = []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        command = [get_core_path(), "leet", "inspect", "-json", "-no-observability", "-run-file", str(file)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
        runs.append([json.loads(line) for line in lines])
    return runs


def _history(records):
    return [record["history"]["item"] for record in records if record["type"] == "history"]


def _begin(folder, name):
    started = Writers([name])
    started.start(folder, CONFIG)
    return started


@pytest.mark.slow
def test_wandb_offline_writes_a_run_that_wandb_reads_and_that_is_continued(tmp_path, offline):
    (folder := tmp_path / "run").mkdir()
    (folder / "report.html").write_text("<p>report</p>")
    first = _begin(folder, "wandb")
    first.scalars("step", 1, {"epoch": 0.5, "train_loss": 0.75, "images_per_second": None})
    first.close()
    second = _begin(folder, "wandb")
    second.scalars("epoch", 2, {"test_accuracy": 0.5})
    second.finish({"test_accuracy": 0.5, "model": "ViT", "adapt": True, "test_loss": float("nan")})
    begun, ended = _read_wandb(folder)
    recorded = json.loads((folder / "loggers.json").read_text())["wandb"]
    runs = [record["run"] for records in (begun, ended) for record in records if record["type"] == "run"]
    assert [run["run_id"] for run in runs] == [recorded, recorded]
    assert (runs[0]["display_name"], runs[0]["project"], runs[1]["resume"]) == ("run", "ppvit_jax", True)
    settings = {name: value for name, value in runs[0]["config"]["update"].items() if name != "_wandb"}
    assert settings == {"epochs": 2, "data.name": "cifar10", "data.dir": "", "freeze": []}
    (item,) = _history(begun)
    assert (item["_step"], item["step/train_loss"]) == (1, 0.75) and "step/images_per_second" not in item
    assert [(item["_step"], item["epoch/test_accuracy"]) for item in _history(ended)] == [(2, 0.5)]
    summary = functools.reduce(dict.__or__, (r["summary"]["update"] for r in ended if r["type"] == "summary"))
    results = {name: value for name, value in summary.items() if name.startswith("result/")}
    assert results == {"result/test_accuracy": 0.5}
    exits = [r["exit"].get("exit_code", 0) for records in (begun, ended) for r in records if r["type"] == "exit"]
    assert exits == [1, 0]
    assert [path.read_text() for path in folder.glob("wandb/offline-run-*/files/report.html")] == ["<p>report</p>"]


@pytest.mark.parametrize("store", ["files", pytest.param("sqlite", marks=pytest.mark.slow)])
def test_mlflow_writes_a_run_that_its_client_reads_and_that_is_continued(tmp_path, offline, store, monkeypatch):
    from mlflow import MlflowClient

    if store == "sqlite":
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    (folder := tmp_path / "run").mkdir()
    (folder / "report.html").write_text("<p>report</p>")
    first = _begin(folder, "mlflow")
    first.scalars("step", 1, {"train_loss": 0.75})
    first.scalars("step", 2, {"train_loss": 0.5})
    first.close()
    run_id, client = json.loads((folder / "loggers.json").read_text())["mlflow"], MlflowClient()
    assert client.get_run(run_id).info.status == "FAILED"
    # The state was saved after step 1, so that step 2 comes again.
    second = _begin(folder, "mlflow")
    assert client.get_run(run_id).info.status == "RUNNING"
    for step in (2, 3):
        second.scalars("step", step, {"train_loss": 1 / step, "images_per_second": None})
    second.finish({"test_accuracy": 0.5, "model": "ViT"})
    shown = client.get_experiment_by_name("ppvit_jax")
    assert shown is not None
    (run,) = client.search_runs([shown.experiment_id])
    assert (run.info.run_id, run.info.status, run.info.run_name) == (run_id, "FINISHED", "run")
    assert run.data.params == {"epochs": "2", "data.name": "cifar10", "data.dir": "", "freeze": "[]"}
    assert set(run.data.tags) == {"mlflow.runName"}
    losses = [(metric.step, metric.value) for metric in client.get_metric_history(run_id, "step/train_loss")]
    assert losses == [(1, 0.75), (2, 0.5), (3, 1 / 3)]
    assert run.data.metrics["result/test_accuracy"] == 0.5 and len(run.data.metrics) == 2
    assert [file.path for file in client.list_artifacts(run_id)] == ["report.html"]


@pytest.mark.slow
def test_a_run_that_the_store_has_lost_begins_again_there(tmp_path, offline, capsys):
    (tmp_path / "loggers.json").write_text(json.dumps({"mlflow": "0" * 32, "other": 5}))
    _begin(tmp_path, "mlflow").close()
    assert "note: MLflow's store lacks the run 000" in capsys.readouterr().err
    assert json.loads((tmp_path / "loggers.json").read_text())["mlflow"] != "0" * 32


class Memory:
    """A writer that remembers its calls, and fails in the methods that it is told."""

    title = "Memory"
    calls: ClassVar[list] = []
    fails: tuple = ()

    @staticmethod
    def require():
        pass

    def _call(self, name, *values):
        self.calls.append((name, *values))
        if name in self.fails:
            raise ConnectionError("the server\nis gone")

    def start(self, run):
        self._call("start", run.recorded_id)
        return "42"

    def scalars(self, step, values):
        self._call("scalars", step, dict(values))

    def finish(self, result, files):
        self._call("finish", dict(result), [file.name for file in files])

    def close(self):
        self._call("close")


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.setitem(WRITERS, "memory", Memory)
    monkeypatch.setattr(Memory, "calls", [])
    return Memory


@pytest.mark.parametrize("method", ["start", "scalars", "finish", "close"])
def test_a_writer_that_fails_is_left_out_with_a_warning(tmp_path, memory, monkeypatch, capsys, method):
    monkeypatch.setattr(Memory, "fails", (method,))
    group = Writers(["memory"])
    group.start(tmp_path, CONFIG)
    group.scalars("step", 1, {"train_loss": 0.5})
    group.scalars("step", 2, {"train_loss": 0.5})
    if method == "finish":
        group.finish({})
    group.close()
    message = "warning: Memory failed (ConnectionError: the server is gone): the run continues without it"
    assert capsys.readouterr().err.startswith(message)
    assert [call[0] for call in memory.calls].count(method) == 1 and memory.calls[-1][0] == method


def test_the_id_of_a_run_is_kept_from_process_to_process(tmp_path, memory):
    for _ in range(2):
        _begin(tmp_path, "memory").close()
    assert memory.calls == [("start", ""), ("close",), ("start", "42"), ("close",)]
    (tmp_path / "loggers.json").write_text("{")
    _begin(tmp_path, "memory")
    assert memory.calls[-1] == ("start", "")


def test_only_files_that_may_be_sent_are_sent(tmp_path, memory):
    for name in ("secret.key", "config.json", "checkpoint.npz", "result.json", "report.html", "confusion.csv"):
        (tmp_path / name).touch()
    _begin(tmp_path, "memory").finish({"test_loss": 1, "steps": 4, "adapt": True, "model": "ViT"})
    assert memory.calls[-1] == ("finish", {"test_loss": 1.0, "steps": 4.0}, ["report.html", "confusion.csv"])


def test_one_process_writes(tmp_path, memory, monkeypatch):
    record = {"config": {}, "metadata": {}, "versions": {}}
    monkeypatch.setattr("orbax.checkpoint.CheckpointManager", lambda *_, **__: io.BytesIO())
    for number, calls in ((0, ["start", "scalars", "close"]), (1, [])):
        memory.calls.clear()
        monkeypatch.setattr(jax, "process_index", lambda number=number: number)
        with Workdir(tmp_path / str(number), record, Metadata("", 16), writers=Writers(["memory"])) as files:
            files.log("step", 1, train_loss=0.5)
        assert [call[0] for call in memory.calls] == calls


def test_unknown_names_and_missing_libraries_are_told_in_one_line(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"config.loggers has 'wanda': use one of 'tensorboard', 'wandb', 'mlflow'$"):
        named(_config(loggers=("wanda",)))
    assert named(_config(loggers=("mlflow", "tensorboard"), tensorboard=True)) == ["tensorboard", "mlflow"]
    monkeypatch.setattr("ppvit_jax.errors.is_installed", lambda module: module not in ("wandb", "mlflow"))
    for name, title in (("wandb", "wandb"), ("mlflow", "MLflow")):
        with pytest.raises(UserError, match=rf"needs {title}: run pip install 'ppvit-jax\[{name}\]'$"):
            # The data set does not exist: nothing is loaded before the library is found to be missing.
            experiment.run(_config(loggers=(name,)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _train(workdir, **fields):
    model = tiny_model()
    config = _config(encryption="none", **fields)
    params, metadata = random_params(model), Metadata(config.model, 16)
    return train(Run(config, random_dataset(), model, params, {}, None, metadata, PLAIN), workdir)


@pytest.mark.slow
def test_a_run_with_a_failing_writer_is_the_run_without_writers(tmp_path, memory, monkeypatch, capsys):
    monkeypatch.setattr(Memory, "fails", ("scalars",))
    for name, loggers in (("without", ()), ("with", ("memory",))):
        _train(tmp_path / name, loggers=loggers)
    assert capsys.readouterr().err.count("warning: Memory failed") == 1
    assert not {"seconds", "peak_memory_bytes"} & read_history(tmp_path / "with")[0].keys()
    assert_same_tree(*(checkpoint.read(tmp_path / name / "checkpoint.npz")[0] for name in ("without", "with")))
    # A writer is no part of the run's identity, and a complete run starts none.
    memory.calls.clear()
    _train(tmp_path / "without", loggers=("memory",), report=True)
    assert "nothing to do" in capsys.readouterr().err and memory.calls == []


@pytest.mark.slow
def test_nothing_of_the_key_is_sent(tmp_path, offline, monkeypatch):
    """Runs with a sealed key, and searches all that the writers leave for the key, its path and its passphrase."""
    (owner := tmp_path / "owners_folder").mkdir()
    (owner / "words.txt").write_text("correct horse battery staple\n")
    key = keys.SecretKey(np.random.default_rng(5).bytes(32))
    keys.save(key, owner / "hidden.key", b"correct horse battery staple")
    config = _config(loggers=("wandb", "mlflow"), tensorboard=True, report=True)
    config.key_file, config.passphrase_file = str(owner / "hidden.key"), str(owner / "words.txt")
    monkeypatch.setattr(sys, "argv", ["ppvit", "train", f"--config.key_file={config.key_file}"])
    result = experiment.run(config, tmp_path / "run", random_dataset(train=32, test=10, size=32))
    assert result.get("seconds", 0) > 0 and result.get("peak_memory_bytes", 0) > 0
    assert result.get("peak_memory_of") == "process"
    assert "peak_memory_bytes" in read_history(tmp_path / "run", "step")[0]
    sent = [*(tmp_path / "run" / "wandb").rglob("*"), *offline.rglob("*"), *(tmp_path / "run").glob("events.*")]
    contents = {path: path.read_bytes() for path in [*sent, tmp_path / "run" / "report.html"] if path.is_file()}
    assert len(contents) > 20
    secrets = [*needles(key, image_size=32, patch_size=8), ("path", b"owners_folder"), ("words", b"horse battery")]
    for path, content in contents.items():
        assert [name for name, secret in secrets if secret in content] == [], path
    # The test can fail: the workdir's own record has the path.
    assert b"owners_folder" in (tmp_path / "run" / "config.json").read_bytes()
    assert b"ViT-Micro" in b"".join(contents.values())


@pytest.mark.slow
def test_a_key_file_of_the_command_line_is_in_no_file_of_wandb(tmp_path, offline):
    program = (
        "import sys; from pathlib import Path; from ppvit_jax.training.writers import Writers\n"
        f"w = Writers(['wandb']); w.start(Path({str(tmp_path)!r}), {{}}); w.finish({{}})"
    )
    subprocess.run([sys.executable, "-c", program, "--config.key_file=/owners_folder/hidden.key"], check=True)
    files = [path for path in (tmp_path / "wandb").rglob("*") if path.is_file()]
    assert files and not [path for path in files if b"owners_folder" in path.read_bytes()]


def test_every_writer_has_the_whole_interface():
    for writer in WRITERS.values():
        for method in ("require", "start", "scalars", "finish", "close"):
            assert callable(getattr(writer, method))
    assert set(writers.WRITERS) == {"tensorboard", "wandb", "mlflow"}
