"""Conversion of a workdir, compared with Orbax's own restoring and the run's own checkpoint.npz."""

import json
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from helpers.command import ROOT, SMALL_RUN, finish, start
from helpers.convert import arrays, convert
from helpers.tiny import assert_same_tree, flatten

from ppvit_jax.config import load
from ppvit_jax.training import experiment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A complete run on four devices, in float64."""
    workdir = tmp_path_factory.mktemp("run") / "workdir"
    ((status, _, errors),) = finish(
        start([*SMALL_RUN, f"--workdir={workdir}"], XLA_FLAGS="--xla_force_host_platform_device_count=4")
    )
    assert status == 0, errors
    return workdir


def test_it_is_the_checkpoint_that_the_run_ends_with(workdir, tmp_path):
    """The process of the conversion has one device, that of the run four."""
    target = tmp_path / "model.npz"
    command = [sys.executable, "-m", "checkpoints_convert.orbax_to_npz", str(workdir), str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert target.read_bytes() == (workdir / "checkpoint.npz").read_bytes()
    assert arrays(target)[1].encryption == "bs+ps" and len(arrays(target)[1].class_names) == 10


def test_it_is_what_orbax_restores(workdir, tmp_path):
    assert convert("orbax_to_npz", workdir, tmp_path / "model.npz", "--step=16") == 0
    with jax.enable_x64(True), ocp.StandardCheckpointer() as checkpointer:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        path = workdir / "checkpoints" / "16" / "default"
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            dict(checkpointer.metadata(path).item_metadata.tree),
        )
        state = checkpointer.restore(path, abstract)
    assert_same_tree(arrays(tmp_path / "model.npz")[0], jax.tree.map(np.asarray, flatten(state["params"])))


DAMAGES = {
    "no workdir": (lambda w: shutil.rmtree(w), [], "is not the workdir of a run"),
    "another folder": (lambda w: (w / "config.json").write_text("{}"), [], "is not the workdir of a run"),
    "no checkpoint yet": (lambda w: shutil.rmtree(w / "checkpoints"), [], "has no checkpoint yet"),
    "no such step": (lambda w: None, ["--step=5"], "has no checkpoint of step 5: choose among 16"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_read_gives_one_line(workdir, tmp_path, capsys, damage):
    make, extra, message = DAMAGES[damage]
    shutil.copytree(workdir, tmp_path / "copy")
    make(tmp_path / "copy")
    assert convert("orbax_to_npz", tmp_path / "copy", tmp_path / "model.npz", *extra) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert re.search(message, errors), errors
    assert not (tmp_path / "model.npz").exists()


def test_a_damaged_checkpoint_gives_one_line(workdir, tmp_path):
    """The script is a process of its own, since Orbax's threads may print as well."""
    shutil.copytree(workdir, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "checkpoints" / "16" / "default" / "d")
    command = [
        sys.executable,
        "-m",
        "checkpoints_convert.orbax_to_npz",
        str(tmp_path / "copy"),
        str(tmp_path / "out.npz"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch("error: cannot read .*default .*\n", done.stderr), done.stderr
    assert not (tmp_path / "out.npz").exists()


def test_the_normalization_of_a_former_versions_run_is_recorded(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "copy")
    content = json.loads((workdir / "config.json").read_text())
    content["metadata"] |= {"mean": [], "std": []}
    content["config"] |= {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 2]}
    (tmp_path / "copy" / "config.json").write_text(json.dumps(content))
    assert convert("orbax_to_npz", tmp_path / "copy", tmp_path / "model.npz") == 0
    assert arrays(tmp_path / "model.npz")[1].normalization == ((0.1, 0.2, 0.3), (1, 1, 2))


def test_metadata_of_the_workdir_is_that_of_the_checkpoint(workdir):
    content = json.loads((workdir / "config.json").read_text())
    assert (
        content["metadata"]["key_fingerprint"]
        == content["key_fingerprint"]
        == arrays(workdir / "checkpoint.npz")[1].key_fingerprint
    )


def test_statistics_come_along(tmp_path):
    overrides = [argument for argument in SMALL_RUN[1:] if argument.startswith("--config.")]
    config = load(
        str(ROOT / "configs" / "table2.py") + ":plain_convmixer",
        [
            *overrides,
            "--config.model=ConvMixer-8/1",
            "--config.data.source=embedded",
            "--config.data.name=digits",
            "--config.epochs=1",
        ],
    )
    experiment.run(config, tmp_path / "run")
    assert convert("orbax_to_npz", tmp_path / "run", tmp_path / "model.npz") == 0
    assert (tmp_path / "model.npz").read_bytes() == (tmp_path / "run" / "checkpoint.npz").read_bytes()
    assert "statistics/embedding_norm/variance" in np.load(tmp_path / "model.npz").files
