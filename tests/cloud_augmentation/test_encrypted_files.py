"""Runs on images that the owner encrypted: their manifest says which augmentations they take; and several devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command import make_key, run_ppvit
from helpers.images import write_images
from helpers.tiny import assert_same_tree

from ppvit_jax import checkpoint
from ppvit_jax.config import check, default_config
from ppvit_jax.errors import UserError
from ppvit_jax.training import experiment
from ppvit_jax.training.workdir import Workdir

FILES = [f"{split}/{label}/{i}.png" for split in ("train", "test") for label in "ab" for i in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Writes images that are encrypted with inverted values."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "plain", FILES)
    options = ["--encryption=np", "--image-size=32", "--block-size=8", "--output", folder / "encrypted"]
    assert run_ppvit("encrypt", "--key", make_key(folder, 1), "--input", folder / "plain", *options) == 0
    return folder / "encrypted"


def _config(folder, augmentation):
    config = default_config()
    config.update({"checkpoint": "", "model": "ViT-Micro/8", "image_size": 32, "encryption": "none", "adapt": False})
    config.data.update({"source": "image_folder", "dir": str(folder)})
    config.update({"batch_size": 4, "eval_batch_size": 4, "epochs": 1, "tensorboard": False})
    config.cloud_augmentation = augmentation
    return check(config)


@pytest.mark.slow
def test_the_manifests_encryption_decides(folder, tmp_path):
    with pytest.raises(
        UserError, match="has brightness, which does not commute with encryption np, because it"
    ) as caught:
        experiment.run(_config(folder, "mixup+brightness"), tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def _stop_after_its_first_step(config, workdir, monkeypatch):
    save = Workdir.save

    def save_and_stop(self, step, state):
        save(self, step, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Workdir, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            experiment.run(config, workdir)


@pytest.mark.slow
def test_a_stopped_run_continues_with_the_same_augmentation_and_no_other(folder, tmp_path, monkeypatch):
    config = _config(folder, "mixup+cutmix+token_drop+contrast")
    config.checkpoint_steps = 1
    result = experiment.run(config, tmp_path / "whole")
    assert result["encryption"] == "np" and result["steps"] == 2
    _stop_after_its_first_step(config, tmp_path / "run", monkeypatch)
    with pytest.raises(UserError, match=r"cloud_augmentation was 'mixup.cutmix.token_drop.contrast' and is 'none'"):
        experiment.run(_config(folder, "none"), tmp_path / "run")
    experiment.run(config, tmp_path / "run")
    whole, continued = (checkpoint.read(tmp_path / name / "checkpoint.npz")[0] for name in ("whole", "run"))
    assert_same_tree(continued, whole)


@pytest.mark.slow
def test_a_run_that_was_recorded_before_the_field_existed_had_no_augmentation(folder, tmp_path, monkeypatch):
    config = _config(folder, "none")
    config.checkpoint_steps = 1
    _stop_after_its_first_step(config, tmp_path / "run", monkeypatch)
    record = tmp_path / "run" / "config.json"
    content = json.loads(record.read_text())
    del content["config"]["cloud_augmentation"]
    record.write_text(json.dumps(content))
    with pytest.raises(UserError, match="cloud_augmentation was 'none' and is 'mixup"):
        experiment.run(_config(folder, "mixup"), tmp_path / "run")
    assert experiment.run(config, tmp_path / "run")["steps"] == 2


def test_the_encryption_of_a_run_that_encrypts_itself_is_checked_with_the_configuration():
    config = default_config()
    config.update({"encryption": "etc:shared=True", "cloud_augmentation": "brightness"})
    with pytest.raises(UserError, match="has brightness, which does not commute with encryption etc:shared=True"):
        check(config)
    config.encryption = "bs+ps"
    check(config)


# Trains two steps on one and on four devices; prints the largest difference of parameters, and of the moved ones.
_SCRIPT = """
import dataclasses, json
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from ppvit_jax import models
from ppvit_jax.config import default_config
from ppvit_jax.training.devices import gather_to_host, make_mesh, shard_batch, shardings
from ppvit_jax.training.step import compile_steps

model = models.parse_name("ViT-Micro/8", image_size=32, num_classes=10, dtype="float64")
model = dataclasses.replace(model, layers=1)
config = default_config()
config.dtype = "float64"
config.cloud_augmentation = "mixup+cutmix+token_drop:rate=0.3+contrast+brightness"
random = np.random.default_rng(0)
batch = {"image": random.integers(0, 256, (8, 32, 32, 3), np.uint8), "label": random.integers(0, 10, 8)}
params = jax.device_get(jax.jit(models.build(model).init)(jax.random.key(0)))
results = []
for devices in (jax.devices()[:1], jax.devices()):
    mesh = jax.sharding.Mesh(np.array(devices), make_mesh().axis_names, axis_types=make_mesh().axis_types)
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    divided = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names))
    steps = compile_steps(model, config, 2, mesh)
    state = jax.device_put(jax.jit(steps.init_state)(params, {}), whole)
    for _ in range(2):
        state = steps.train_step(state, jax.device_put(batch, divided), jax.device_put(jax.random.key(0), whole), None)
    results.append(jax.device_get(state["params"]))
apart, moved = (max(jax.tree.leaves(jax.tree.map(lambda a, b: float(abs(a - b).max()), results[1], other)))
                for other in (results[0], params))
print(json.dumps([apart, moved]))
"""


@pytest.mark.slow
def test_four_devices_draw_what_one_does():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", _SCRIPT], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    apart, moved = json.loads(done.stdout)
    assert apart < 1e-12 < 1e-5 < moved
