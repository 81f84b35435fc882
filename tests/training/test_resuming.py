"""Training from the command line: resuming after a kill, and several devices and processes."""

import json
import shutil
import signal
import socket
import time

import numpy as np
import pytest
from helpers.command import SMALL_RUN, finish, make_key, run_ppvit, start
from helpers.tiny import assert_close_tree, assert_same_tree

from ppvit_jax import checkpoint
from ppvit_jax.config import SHARDINGS
from ppvit_jax.training.workdir import read_history

pytestmark = pytest.mark.slow

# Two epochs of two steps: devices that wait for each other keep the cores busy.
SHORT_RUN = [*SMALL_RUN, "--config.data.train_examples=16"]


def _tuned(workdir):
    return checkpoint.read(workdir / "checkpoint.npz")[0]


@pytest.fixture(scope="module")
def key_file(tmp_path_factory):
    return make_key(tmp_path_factory.mktemp("key"))


@pytest.fixture(scope="module")
def reference(tmp_path_factory, key_file):
    """Trains the small run in this process on one device; returns its workdir."""
    return _train(SMALL_RUN, tmp_path_factory.mktemp("reference"), key_file)


@pytest.fixture(scope="module")
def short_reference(tmp_path_factory, key_file):
    """Trains the short run in this process on one device; returns its workdir."""
    return _train(SHORT_RUN, tmp_path_factory.mktemp("short_reference"), key_file)


def _train(arguments, workdir, key_file):
    assert run_ppvit("train", *arguments, f"--workdir={workdir}", f"--config.key_file={key_file}") == 0
    return workdir


def _assert_same_run(workdir, reference, tolerance):
    assert_close_tree(_tuned(workdir), _tuned(reference), tolerance)
    ours, theirs = (json.loads((folder / "result.json").read_text()) for folder in (workdir, reference))
    assert (ours["test_accuracy"], ours["test_examples"]) == (theirs["test_accuracy"], 30)
    np.testing.assert_allclose(ours["test_loss"], theirs["test_loss"], rtol=1e-6)


def _kill_after_a_saved_step(arguments, workdir, **environment):
    """Starts a run and kills it when it has saved a state."""
    process = start(arguments, **environment)
    deadline = time.monotonic() + 200
    while not any(path.name.isdecimal() for path in workdir.glob("checkpoints/*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    finish(process)
    assert not (workdir / "result.json").exists()


def test_a_killed_process_is_resumed_bit_for_bit(tmp_path, key_file, reference):
    arguments = [*SMALL_RUN, f"--workdir={tmp_path}", f"--config.key_file={key_file}"]
    _kill_after_a_saved_step(arguments, tmp_path)
    ((status, _, errors),) = finish(start(arguments))
    assert status == 0, errors
    # It resumed from a saved step and did not start from the first.
    assert "step 1/16 " not in errors
    assert_same_tree(_tuned(tmp_path), _tuned(reference))
    _assert_same_run(tmp_path, reference, 0)


def test_a_killed_run_of_lora_is_resumed_bit_for_bit(tmp_path, key_file):
    tuning = ["--config.tuning.method=lora", f"--config.key_file={key_file}"]
    complete, killed = ([*SMALL_RUN, *tuning, f"--workdir={tmp_path / name}"] for name in ("complete", "killed"))
    assert run_ppvit("train", *complete) == 0
    _kill_after_a_saved_step(killed, tmp_path / "killed")
    ((status, _, errors),) = finish(start(killed))
    assert status == 0, errors
    assert "step 1/16 " not in errors
    deltas = [checkpoint.read(tmp_path / name / "checkpoint.npz", delta=True) for name in ("killed", "complete")]
    assert_same_tree(deltas[0][0], deltas[1][0])
    assert deltas[0][1] == deltas[1][1]
    # The rest of the model is not in the saved state.
    saved = sum(file.stat().st_size for file in (tmp_path / "complete" / "checkpoints").rglob("*") if file.is_file())
    assert saved < checkpoint.resolve("embedded").stat().st_size


def test_a_run_goes_on_with_other_devices(tmp_path, key_file, reference):
    """Trains fully sharded on four devices, then data parallel on two, with accumulation."""
    arguments = [*SMALL_RUN, f"--workdir={tmp_path}", f"--config.key_file={key_file}"]
    flag = "--xla_force_host_platform_device_count"
    _kill_after_a_saved_step([*arguments, "--config.sharding=fully_sharded"], tmp_path, XLA_FLAGS=f"{flag}=4")
    ((status, _, errors),) = finish(start([*arguments, "--config.accumulation=2"], XLA_FLAGS=f"{flag}=2"))
    assert status == 0, errors
    assert "step 1/16 " not in errors
    assert json.loads((tmp_path / "result.json").read_text())["device"] == "2 x cpu"
    _assert_same_run(tmp_path, reference, 1e-9)


def test_a_damaged_state_gives_one_line_and_stays(tmp_path, key_file, reference):
    """Runs in a process of its own, because threads of Orbax may print, too."""
    shutil.copytree(reference, tmp_path / "copy")
    (tmp_path / "copy" / "result.json").unlink()
    shutil.rmtree(tmp_path / "copy" / "checkpoints" / "16" / "default" / "d")
    arguments = [*SMALL_RUN, f"--workdir={tmp_path / 'copy'}", f"--config.key_file={key_file}"]
    ((status, _, errors),) = finish(start(arguments))
    assert status == 1
    assert errors.startswith("error: cannot read ") and errors.count("\n") == 1, errors
    assert "remove checkpoints/ to start the run again" in errors
    assert len((tmp_path / "copy" / "metrics.jsonl").read_text().splitlines()) == 18


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_two_processes_of_two_devices_compute_what_one_does(tmp_path, key_file, short_reference, sharding):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    arguments = [*SHORT_RUN, f"--workdir={tmp_path}", f"--config.key_file={key_file}", f"--config.sharding={sharding}"]
    cluster = ["--distributed", f"--coordinator-address={address}", "--num-processes=2"]
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    outcomes = finish(*(start([*arguments, *cluster, f"--process-id={i}"], **two) for i in range(2)))
    for status, _, errors in outcomes:
        assert status == 0, errors
    assert json.loads((tmp_path / "result.json").read_text())["device"] == "4 x cpu"
    assert "images/s" not in outcomes[1][2]
    assert len(read_history(tmp_path, "step")) == 4
    _assert_same_run(tmp_path, short_reference, 1e-9)


def test_a_batch_that_the_devices_cannot_share_is_named(tmp_path, key_file):
    arguments = [*SMALL_RUN, f"--workdir={tmp_path}", f"--config.key_file={key_file}", "--config.accumulation=4"]
    ((status, _, errors),) = finish(start(arguments, XLA_FLAGS="--xla_force_host_platform_device_count=4"))
    assert status == 1
    assert errors == (
        "error: config.batch_size 8 cannot be shared by 4 devices: use a multiple of 4 times config.accumulation\n"
    )
