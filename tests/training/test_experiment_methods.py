"""The all-in-one experiment with every type of encryption, on a few embedded digits."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.command import make_key
from helpers.tiny import assert_close_tree

from ppvit_jax import adaptation, checkpoint, data, keys, models
from ppvit_jax.config import check, default_config, make_encryption, make_model
from ppvit_jax.data.preprocess import normalize_images, preprocess
from ppvit_jax.errors import UserError
from ppvit_jax.training import experiment
from ppvit_jax.training.results import read_history

VIT = {"checkpoint": "embedded", "model": "ViT-Micro/8", "image_size": 32}
ADAPTED_VIT = {**VIT, "dtype": "float64", "adapt": True}
CONVMIXER = {"model": "ConvMixer-16/1", "model_options": {"patch_size": 4, "kernel_size": 3}}
# Each run: the encryption as a user may write it, its canonical form, and fields of the configuration.
RUNS = {
    "plain": ("none", "none", ADAPTED_VIT),
    "bs+ps+np": ("bs+ps+np", "bs+ps+np", ADAPTED_VIT),
    "etc": ("etc:rotation=True,shared=True,sub_block_size=4", "etc:sub_block_size=4,shared=True", ADAPTED_VIT),
    "le": ("le", "le", {"model": "PyramidNet-8/6", "model_options": {"adaptation_network": "le"}, "block_size": 4}),
    "pe": ("pe:keys=per_image,colour=True", "pe:keys=per_image", CONVMIXER),
    "neuracrypt": ("neuracrypt:width=32,depth=1", "neuracrypt:depth=1,width=32", {"model": "NeuraCrypt-32/8"}),
    "color-neuracrypt": ("color-neuracrypt:depth=1", "color-neuracrypt:depth=1", VIT),
    "plain matrix": ("none", "none", {**CONVMIXER, "dtype": "float64"}),
    "adapted matrix": ("bs+ps+np", "bs+ps+np", {**CONVMIXER, "dtype": "float64", "adapt": True}),
}


def _config(encryption, **fields):
    config = default_config()
    config.update({"checkpoint": "", "image_size": 16, "adapt": False, "encryption": encryption})
    config.data.update({"source": "embedded", "name": "digits", "train_examples": 32, "test_examples": 20})
    config.update({"batch_size": 8, "eval_batch_size": 8, "epochs": 1, "log_steps": 1, "tensorboard": False})
    config.optimizer.learning_rate = 0.01
    config.update(fields)
    if config.dtype == "float64" and config.model.startswith("ConvMixer"):
        config.model_options.adaptive_matrix = "softmax"
    return check(config)


def _run_config(name):
    encryption, _, fields = RUNS[name]
    return _config(encryption, **fields)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns the folder of the runs, with their common key."""
    folder = tmp_path_factory.mktemp("runs")
    make_key(folder, 5).rename(folder / "secret.key")
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """Returns a function from the name of a run to its workdir; it trains each run once."""

    def run(name):
        workdir = folder / name
        if not (workdir / "result.json").exists():
            experiment.run(_run_config(name), workdir, key_folder=folder)
        return workdir

    return run


def _secret_key(run):
    return keys.load(run("plain").parent / "secret.key")


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_result_says_the_encryption_and_is_that_of_the_encrypted_test_images(run, name):
    """Here numpy encrypts the images, and test image i has number 2**31 + i."""
    workdir, config = run(name), _run_config(name)
    result = json.loads((workdir / "result.json").read_text())
    key = keys.load(workdir.parent / "secret.key")
    canonical = RUNS[name][1]
    adapted = config.adapt and canonical != "none"
    assert (result["encryption"], result["adapt"]) == (canonical, adapted)
    assert result["key_fingerprint"] == (None if canonical == "none" else key.fingerprint)
    arrays, metadata = checkpoint.read(workdir / "checkpoint.npz")
    assert (metadata.encryption, metadata.key_fingerprint) == (
        (canonical, key.fingerprint) if adapted else ("none", None)
    )

    dataset, model_config = data.load(config.data, config.image_size, config.seed), make_model(config, 10)
    images = np.stack([dataset.test.fetch(i) for i in range(20)])
    inputs = np.asarray(preprocess(jnp.asarray(images), config.image_size))
    method = make_encryption(config, model_config)
    if method is not None:
        secret = method.derive(key, height=config.image_size, width=config.image_size)
        inputs = method.encrypt(inputs, secret, np.arange(2**31, 2**31 + 20, dtype=np.uint32))
    with jax.enable_x64(config.dtype == "float64"):
        if inputs.dtype == np.uint8:
            inputs = normalize_images(inputs, config.mean, config.std, config.dtype)
        params, statistics = checkpoint.split(arrays)
        params = checkpoint.to_params(params, model_config, keep_head=True)
        logits = np.float64(jax.jit(models.build(model_config).apply)(params, inputs, statistics))
    log_likelihood = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(result["test_loss"], -log_likelihood[range(20), dataset.test.labels].mean(), rtol=1e-4)
    assert result["test_accuracy"] == (logits.argmax(1) == dataset.test.labels).mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plain", "adapted"), [("plain", "bs+ps+np"), ("plain", "etc"), ("plain matrix", "adapted matrix")]
)
def test_an_adapted_run_is_the_plain_run_step_by_step(run, plain, adapted):
    histories = [read_history(run(name), "step") for name in (plain, adapted)]
    losses, adapted_losses = ([line["train_loss"] for line in lines] for lines in histories)
    assert len(losses) == 4 and len(set(losses)) == 4
    np.testing.assert_allclose(adapted_losses, losses, rtol=1e-5)
    assert [line["train_accuracy"] for line in histories[0]] == [line["train_accuracy"] for line in histories[1]]

    config = _run_config(adapted)
    patch_size = make_model(config, 10).patch_size
    permutations = _secret_key(run).permutations(config.encryption, image_size=config.image_size, patch_size=patch_size)
    assert permutations.negative is not None and permutations.negative.any() and not permutations.negative.all()
    trees, statistics = [], []
    for name in (plain, adapted):
        arrays, kept = checkpoint.split(checkpoint.read(run(name) / "checkpoint.npz")[0])
        with jax.enable_x64(True):
            trees.append(checkpoint.to_params(arrays, make_model(config, 10), keep_head=True))
        statistics.append(kept)
    assert np.abs(trees[1]["embedding"]["kernel"] - trees[0]["embedding"]["kernel"]).max() > 1e-3
    assert_close_tree(adaptation.restore(trees[1], permutations), trees[0], 1e-9)
    assert_close_tree(statistics[1], statistics[0], 1e-9)


def _one_line(tmp_path, config, message):
    with pytest.raises(UserError, match=message) as caught:
        experiment.run(config, tmp_path / "workdir", key_folder=tmp_path)
    assert "\n" not in str(caught.value)
    # Nothing was begun.
    assert not (tmp_path / "workdir").exists()


@pytest.mark.parametrize(
    ("encryption", "reason"),
    [
        ("le", "it separates the low and high four bits of a value"),
        ("ele", "it separates the low and high four bits of a value"),
        ("pe", "every pixel of an image has a key of its own"),
        ("pe:keys=per_image", "every pixel of an image has a key of its own"),
        ("etc", "differs from block to block"),
        ("etc:shared=True,channels=legacy", "the published channels destroy information"),
        ("bs+pps:shared=none", "differs from block to block"),
        ("bs+ps+np:shared=False", "differs from block to block"),
        ("neuracrypt:width=16,depth=1", "its random network is not linear"),
        ("color-neuracrypt:depth=0", "its random network is not linear"),
    ],
)
def test_what_no_model_can_be_adapted_to_is_named_with_the_reason_and_the_way_out(tmp_path, encryption, reason):
    config = _config(encryption, **VIT | {"adapt": True})
    pattern = f"^a model cannot be adapted to .*{reason}.*; config.adapt=False trains without adaptation$"
    _one_line(tmp_path, config, pattern)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encryption", "fields", "message"),
    [
        (
            "neuracrypt:width=16,depth=1",
            VIT,
            "^ViT-Micro/8 takes inputs of shape 32x32x3, but encryption neuracrypt:width=16,depth=1 produces 16x16: "
            "choose a model and an encryption that match$",
        ),
        ("neuracrypt:width=16,depth=1", {"model": "NeuraCrypt-32/8"}, "inputs of shape 4x32, .* produces 4x16: choose"),
        ("bs+ps", {"model": "NeuraCrypt-32/8"}, "inputs of shape 4x32, but encryption bs.ps produces 16x16x3"),
        ("none", {"model": "NeuraCrypt-32/8"}, "inputs of shape 4x32, but encryption none produces 16x16x3"),
        ("le", {"model": "PyramidNet-8/6", "block_size": 5}, "image of 16x16 does not divide into blocks of 5x5"),
        (
            "np",
            {**VIT, "adapt": True, "mean": (0.4, 0.4, 0.4)},
            "^config.mean is 0.4, but np inverts values, .*: set config.mean to 0.5$",
        ),
        (
            "bs",
            {**CONVMIXER, "adapt": True},
            "^the model has no position embedding, so it cannot be adapted to scrambled blocks: .*, or "
            "config.adapt=False$",
        ),
        ("np", {"model": "PyramidNet-8/6", "block_size": 4, "adapt": True}, "the model has no patch embedding"),
        ("bs+ps", {**VIT, "adapt": True, "block_size": 16}, "has 768 places, and the model has 192 values"),
    ],
)
def test_a_model_and_an_encryption_that_do_not_go_together_are_refused_with_one_line(
    tmp_path, encryption, fields, message
):
    _one_line(tmp_path, _config(encryption, **fields), message)


@pytest.mark.parametrize("encryption", ["le", "bs+ps", "neuracrypt"])
def test_a_model_without_patches_needs_the_size_of_blocks(encryption):
    with pytest.raises(UserError, match=r"encryption .* has a block size of 0: give at least 1") as caught:
        _config(encryption, model="ResNet-18")
    assert "\n" not in str(caught.value)


def test_what_inverts_values_trains_at_any_mean_where_nothing_is_adapted(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "train", lambda run, workdir: {"encryption": run.images.encryption})
    config = _config("np", **VIT | {"mean": (0.4, 0.5, 0.6)})
    assert experiment.run(config, tmp_path, key_folder=tmp_path) == {"encryption": "np"}


def test_what_only_moves_values_is_adapted_to_at_any_mean(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "train", lambda run, workdir: {"model": run.metadata.encryption})
    config = _config("etc:shared=True,negative_positive=False", **VIT | {"adapt": True, "mean": (0.4, 0.4, 0.4)})
    spec = "etc:shared=True,negative_positive=False"
    assert experiment.run(config, tmp_path, key_folder=tmp_path) == {"model": spec}
