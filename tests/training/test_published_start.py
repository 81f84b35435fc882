"""Runs that start from a checkpoint as timm publishes it."""

import json
from typing import Any

import numpy as np
import pytest
from helpers.tiny import assert_close_tree, flatten, random_dataset, random_params
from safetensors.numpy import save_file

from checkpoints_convert.names import from_google
from checkpoints_convert.tables.vit import TIMM
from ppvit_jax import adaptation, models
from ppvit_jax.config import check, default_config
from ppvit_jax.errors import UserError
from ppvit_jax.training import experiment

MODEL: Any = models.parse_name("ViT-Micro/8", image_size=16, num_classes=5)
PARAMS = random_params(MODEL)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def folder(tmp_path):
    """A folder of timm with a ViT-Micro/8."""
    save_file(from_google(flatten(PARAMS), TIMM, layers=MODEL.layers), tmp_path / "model.safetensors")
    pretrained = {"mean": MEAN, "std": STD, "input_size": [3, 16, 16]}
    config = {"architecture": "vit_micro", "model_args": {"num_heads": 4, "act_layer": "gelu"}}
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_classes": 5, "pretrained_cfg": pretrained}))
    return tmp_path


def _configure(folder, **fields):
    config = default_config()
    config.update({"checkpoint": str(folder), "model": "auto", "image_size": 16, "batch_size": 8})
    config.update({"encryption": "none"} | fields)
    return config


@pytest.fixture
def prepare(folder, monkeypatch):
    """Returns a function that prepares a run from the folder, and returns it without training."""
    monkeypatch.setattr(experiment, "train", lambda run, workdir: run)

    def prepare(**fields):
        config = check(_configure(folder, **fields))
        return experiment.run(config, folder / "run", random_dataset(num_classes=3))

    return prepare


@pytest.mark.slow
def test_the_checkpoint_decides_name_options_and_normalization(prepare):
    run = prepare()
    assert run.config.model == "ViT-Micro/8" and run.model_config.activation == "gelu"
    folded = adaptation.fold_normalization(PARAMS, (MEAN, STD), ((0.5,) * 3, (0.5,) * 3))
    folded["head"] = {"kernel": np.zeros((128, 3), np.float32), "bias": np.zeros(3, np.float32)}
    assert_close_tree(run.params, folded, 1e-7)
    record = run.metadata
    assert (record.mean, record.own_mean, record.own_std) == ((0.5,) * 3, MEAN, STD)
    assert record.origin == "timm:vit_micro" and record.class_names == ("class 0", "class 1", "class 2")


def test_a_run_in_the_published_normalization_needs_no_other(prepare):
    run = prepare(mean=MEAN, std=STD)
    assert (run.metadata.mean, run.metadata.own_mean) == (MEAN, ())
    np.testing.assert_array_equal(run.params["embedding"]["kernel"], PARAMS["embedding"]["kernel"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model": "DINOv2-S/14", "image_size": 28},
            "is ViT-Micro/8, but config.model is DINOv2-S/14: set config.model=",
        ),
        ({"model": "ViT-Micro/16"}, "is ViT-Micro/8 with patches of 8x8 pixels, but config.model is ViT-Micro/16"),
        ({"model": "ViT-Ti/8"}, "does not fit the model"),
        ({"checkpoint_sha256": "0" * 64}, "model.safetensors has the SHA-256 .* and not 000"),
    ],
)
def test_a_configuration_of_another_model_or_file_is_refused(prepare, fields, message):
    with pytest.raises(UserError, match=message):
        prepare(**fields)


def test_auto_needs_a_checkpoint_of_a_named_size(folder, prepare):
    with pytest.raises(UserError, match=r"takes the model of config.checkpoint, which is empty"):
        prepare(checkpoint="")
    config = json.loads((folder / "config.json").read_text())
    config["model_args"]["num_heads"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="is a Vision Transformer of a size without a name"):
        prepare()
