"""Tests of `ppvit keygen`, `adapt`, `restore` and `rekey`."""

import dataclasses
import re
import stat
from typing import Any

import jax
import numpy as np
import pytest
from helpers.command import make_key
from helpers.command import run_ppvit as _run
from helpers.tiny import assert_close_tree, assert_same_tree, flatten, random_params, tiny_model
from helpers.transformers import tiny_transformers

from ppvit_jax import adaptation, checkpoint, keys, models
from ppvit_jax.checkpoint import Metadata

MODEL = tiny_model()
PARAMS = random_params(MODEL)
NAMES = ("a", "b", "c")


@pytest.fixture
def plain(tmp_path):
    checkpoint.write(tmp_path / "plain.npz", PARAMS, Metadata(image_size=16, class_names=NAMES))
    return tmp_path / "plain.npz"


@pytest.fixture
def key(tmp_path):
    return make_key(tmp_path, 1)


def _permutations(key, encryption="bs+ps", image_size=16):
    return keys.load(key).permutations(encryption, image_size=image_size, patch_size=4)


def _read(path):
    arrays, metadata = checkpoint.read(path)
    return checkpoint.to_params(arrays, models.infer_config(arrays, where=""), keep_head=True), metadata


@pytest.mark.parametrize("encryption", ["bs", "ps", "bs+ps"])
def test_adapt_and_back(tmp_path, plain, key, encryption):
    adapted, restored = tmp_path / "adapted.npz", tmp_path / "restored.npz"
    options = ["--key", key, "--image-size=16", "--encryption", encryption]
    assert _run("adapt", *options, "--checkpoint", plain, "--output", adapted) == 0
    params, metadata = _read(adapted)
    assert_same_tree(params, adaptation.adapt(PARAMS, _permutations(key, encryption)))
    assert metadata == Metadata("", 16, encryption, keys.load(key).fingerprint, NAMES)
    assert _run("restore", "--key", key, "--checkpoint", adapted, "--output", restored) == 0
    params, metadata = _read(restored)
    assert_same_tree(params, PARAMS)
    assert metadata == Metadata("", 16, "none", None, NAMES)


def test_rekey_is_restoring_and_adapting_again(tmp_path, plain, key):
    new = make_key(tmp_path, 2)
    adapted, moved = tmp_path / "adapted.npz", tmp_path / "moved.npz"
    assert _run("adapt", "--key", key, "--checkpoint", plain, "--output", adapted, "--image-size=16") == 0
    assert _run("rekey", "--key", key, "--new-key", new, "--checkpoint", adapted, "--output", moved) == 0
    params, metadata = _read(moved)
    assert_same_tree(params, adaptation.adapt(PARAMS, _permutations(new)))
    assert metadata.key_fingerprint == keys.load(new).fingerprint != keys.load(key).fingerprint


def test_the_images_may_have_another_size_than_the_checkpoint(tmp_path, plain, key, capsys):
    adapted = tmp_path / "adapted.npz"
    options = ["--key", key, "--checkpoint", plain, "--output", adapted, "--image-size=224"]
    assert _run("adapt", *options) == 0
    assert f"note: the position embedding of {plain} is resized from 16 to 224" in capsys.readouterr().err
    params, metadata = _read(adapted)
    assert metadata.image_size == 224
    resized = checkpoint.to_params(flatten(PARAMS), tiny_model(image_size=224), keep_head=True)
    assert_same_tree(params, adaptation.adapt(resized, _permutations(key, image_size=224)))


@pytest.mark.slow
def test_the_checkpoint_in_the_package_gets_its_name_and_keeps_its_size(tmp_path, key, capsys):
    options = ["--key", key, "--checkpoint=embedded"]
    assert _run("adapt", *options, "--output", tmp_path / "adapted.npz") == 0
    printed = capsys.readouterr()
    assert "ViT-Micro/8, 64x64, adapted to bs+ps" in printed.out and "note:" not in printed.err
    assert _read(tmp_path / "adapted.npz")[1].model == "ViT-Micro/8"


def test_a_checkpoint_without_head_stays_without(tmp_path, key):
    headless = {name: branch for name, branch in PARAMS.items() if name != "head"}
    checkpoint.write(tmp_path / "headless.npz", headless, Metadata())
    adapted, restored = tmp_path / "adapted.npz", tmp_path / "restored.npz"
    options = ["--key", key, "--checkpoint", tmp_path / "headless.npz", "--image-size=16"]
    assert _run("adapt", *options, "--output", adapted) == 0
    assert _run("restore", "--key", key, "--checkpoint", adapted, "--output", restored) == 0
    assert_same_tree(checkpoint.read(restored)[0], flatten(headless))


@pytest.mark.parametrize(
    ("title", "has_head"),
    [
        ("DeiT-S/8-distilled", False),
        ("DeiT-S/8-III", True),
        ("DINOv2-g/7-registers as in timm", False),
        ("SigLIP-B/8 mean", True),
        ("CLIP-B/8", False),
    ],
)
def test_a_model_of_any_family_is_adapted_and_restored(tmp_path, key, title, has_head):
    config = tiny_transformers(image_sizes=4)[title]
    params = {name: layer for name, layer in random_params(config).items() if has_head or not name.startswith("head")}
    mean, std, half = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (0.5, 0.5, 0.5)
    record = Metadata(image_size=config.image_size, mean=mean, std=std, model_options=models.recorded_options(config))
    checkpoint.write(tmp_path / "plain.npz", params, record)
    adapted, restored = tmp_path / "adapted.npz", tmp_path / "restored.npz"
    options = ["--key", key, "--image-size", config.image_size, "--checkpoint", tmp_path / "plain.npz"]
    assert _run("adapt", *options, "--output", adapted) == 0
    folded = adaptation.fold_normalization(params, (mean, std), (half, half))
    size, patch = config.image_size, config.patch_size
    permutations = keys.load(key).permutations("bs+ps", image_size=size, patch_size=patch)
    arrays, metadata = checkpoint.read(adapted)
    assert_same_tree(arrays, adaptation.adapt(folded, permutations))
    assert metadata.model_options == record.model_options and metadata.encryption == "bs+ps"
    assert _run("restore", "--key", key, "--checkpoint", adapted, "--output", restored) == 0
    back = checkpoint.read(restored)
    expected = folded if back[1].mean in ((), half) else params
    assert_close_tree(back[0], flatten(expected), 1e-6)


@pytest.mark.slow
def test_double_precision_and_pre_logits_are_kept(tmp_path, key):
    model = tiny_model(representation_size=8)
    params = random_params(model, dtype=np.float64)
    checkpoint.write(tmp_path / "double.npz", params, Metadata())
    adapted, restored = tmp_path / "adapted.npz", tmp_path / "restored.npz"
    options = ["--key", key, "--checkpoint", tmp_path / "double.npz", "--image-size=16"]
    assert _run("adapt", *options, "--output", adapted) == 0
    assert _run("restore", "--key", key, "--checkpoint", adapted, "--output", restored) == 0
    assert_same_tree(checkpoint.read(restored)[0], flatten(params))
    assert {leaf.dtype for leaf in jax.tree.leaves(checkpoint.read(restored)[0])} == {np.dtype("float64")}


def test_metadata_that_another_program_lost_can_be_said(tmp_path, plain, key, capsys):
    checkpoint.write(tmp_path / "lost.npz", adaptation.adapt(PARAMS, _permutations(key, "bs")), Metadata())
    options = ["restore", "--key", key, "--checkpoint", tmp_path / "lost.npz", "--output", tmp_path / "out.npz"]
    assert _run(*options) == 1
    assert "has no metadata of an adaptation" in capsys.readouterr().err
    assert _run(*options, "--encryption=bs") == 0
    assert_same_tree(_read(tmp_path / "out.npz")[0], PARAMS)


@pytest.mark.parametrize("sealed", [False, True])
def test_keygen_makes_a_key_that_nobody_else_can_read(tmp_path, plain, capsys, sealed):
    (tmp_path / "passphrase").write_text("correct horse\nsecond line\n")
    extra = ["--passphrase-file", tmp_path / "passphrase"] if sealed else []
    path = tmp_path / "secret.key"
    assert _run("keygen", "--output", path, *extra) == 0
    printed = capsys.readouterr().out
    key = keys.load(path, b"correct horse" if sealed else None)
    assert key.fingerprint in printed and stat.S_IMODE(path.stat().st_mode) == 0o600
    options = ["--key", path, "--checkpoint", plain, "--output", tmp_path / "adapted.npz", "--image-size=16"]
    assert _run("adapt", *options, *extra) == 0
    assert _read(tmp_path / "adapted.npz")[1].key_fingerprint == key.fingerprint
    assert _run("keygen", "--output", path, *extra) == 1
    assert "exists: choose another name for the key" in capsys.readouterr().err


MISTAKES = {
    "no checkpoint": ("adapt", ["--checkpoint=no.npz"], "cannot read the checkpoint no.npz"),
    "not a checkpoint": ("adapt", ["--checkpoint={tmp}/1.key"], "is JSON text and not a .npz file"),
    "not a transformer": ("adapt", ["--checkpoint={tmp}/other.npz"], "is not a Vision Transformer .* lacks embedding"),
    "adapted already": ("adapt", ["--checkpoint={tmp}/adapted.npz"], "is already adapted to bs\\+ps"),
    "size": ("adapt", ["--image-size=17"], "--image-size 17 is not a multiple of the model's patch size 4"),
    "output exists": ("adapt", ["--output={tmp}/plain.npz"], "plain.npz exists: choose another name"),
    "output nowhere": ("adapt", ["--output={tmp}/no/out.npz"], "there is no folder"),
    "sealed key": ("adapt", ["--key={tmp}/sealed.key"], "is sealed: give its passphrase"),
    "no passphrase": ("adapt", ["--passphrase-file={tmp}/empty"], "write it on the first line of the file"),
    "plain model": ("restore", [], "has no metadata of an adaptation"),
    "another key": (
        "restore",
        ["--checkpoint={tmp}/adapted.npz", "--key={tmp}/2.key"],
        r"fingerprint \w+, but --key",
    ),
    "another encryption": ("restore", ["--checkpoint={tmp}/adapted.npz", "--encryption=bs"], "--encryption is bs"),
    "rekey with another key": (
        "rekey",
        ["--checkpoint={tmp}/adapted.npz", "--key={tmp}/2.key", "--new-key={tmp}/1.key"],
        r"fingerprint \w+, but --key has",
    ),
    "rekey a plain model": ("rekey", ["--new-key={tmp}/2.key"], "has no metadata of an adaptation"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_line_and_writes_nothing(tmp_path, plain, key, capsys, mistake):
    command, extra, message = MISTAKES[mistake]
    make_key(tmp_path, 2)
    keys.save(keys.generate(), tmp_path / "sealed.key", b"passphrase")
    (tmp_path / "empty").write_text("\n")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    adapted = tmp_path / "adapted.npz"
    assert _run("adapt", "--key", key, "--checkpoint", plain, "--output", adapted, "--image-size=16") == 0
    capsys.readouterr()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    options = ["--key", key, "--checkpoint", plain, "--output", tmp_path / "out.npz"]
    assert _run(command, *options, *(text.format(tmp=tmp_path) for text in extra)) == 1
    errors = capsys.readouterr().err
    assert re.search(message, errors), errors
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_a_model_that_shows_the_permutation_of_blocks_is_adapted_with_a_warning(tmp_path, key, capsys):
    named: Any = models.parse_name("DINOv3-S/16", image_size=32, num_classes=3)
    config = dataclasses.replace(named, layers=1, hidden_size=16, heads=2, mlp_size=16)
    params = jax.device_get(models.build(config).init(jax.random.key(0)))
    plain = tmp_path / "dinov3.npz"
    checkpoint.write(plain, params, Metadata(image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3))
    for encryption, warns in (("bs+ps", True), ("ps", False)):
        output = tmp_path / f"{encryption}.npz"
        arguments = ("--checkpoint", plain, "--output", output, "--encryption", encryption, "--key", key)
        assert _run("adapt", *arguments) == 0
        assert ("shows the permutation of blocks" in capsys.readouterr().err) == warns
    assert _run("restore", "--key", key, "--checkpoint", tmp_path / "bs+ps.npz", "--output", tmp_path / "back.npz") == 0
    assert_same_tree(checkpoint.read(tmp_path / "back.npz")[0], flatten(params))
