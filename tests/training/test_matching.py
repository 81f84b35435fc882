"""Training on images that are already encrypted, and errors for models that do not match them."""

import dataclasses
import json
import re

import numpy as np
import pytest
from helpers.command import make_key, run_ppvit
from helpers.images import write_images
from helpers.tiny import assert_close_tree

from ppvit_jax import checkpoint
from ppvit_jax.config import default_config
from ppvit_jax.errors import UserError
from ppvit_jax.training import experiment

FILES = [f"{split}/{label}/{i}.png" for split in ("train", "test") for label in "ab" for i in range(8)]
SIZES = ["--image-size=32", "--patch-size=8"]


def _run(*arguments):
    assert run_ppvit(*arguments) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Writes plain images, encrypted images with two keys, decrypted images, and an adapted checkpoint."""
    folder = tmp_path_factory.mktemp("images")
    key, other = make_key(folder, 1), make_key(folder, 2)
    write_images(folder / "plain", FILES)
    _run("encrypt", "--key", key, "--input", folder / "plain", "--output", folder / "encrypted", *SIZES)
    _run("encrypt", "--key", other, "--input", folder / "plain", "--output", folder / "other", *SIZES)
    _run("decrypt", "--key", key, "--input", folder / "encrypted", "--output", folder / "decrypted")
    options = ["--checkpoint=embedded", "--image-size=32"]
    _run("adapt", "--key", key, "--output", folder / "adapted.npz", *options)
    return folder


def _config(folder, images="encrypted", model="adapted.npz", **fields):
    config = default_config()
    config.checkpoint = model if model in ("", "embedded") else str(folder / model)
    config.model, config.image_size = "ViT-Micro/8", 32
    config.data.source, config.data.dir = "image_folder", str(folder / images)
    config.encryption, config.adapt = "none", False
    config.batch_size = config.eval_batch_size = 4
    config.epochs, config.tensorboard = 2, False
    config.update(fields)
    return config


@pytest.mark.slow
def test_training_on_encrypted_files_is_training_with_the_key(folder, tmp_path):
    """Without the key, the cloud computes the same parameters as the all-in-one experiment."""
    experiment.run(_config(folder, dtype="float64"), tmp_path / "cloud")
    all_in_one = _config(folder, "plain", "embedded", dtype="float64", encryption="bs+ps", adapt=True)
    all_in_one.key_file = str(folder / "1.key")
    experiment.run(all_in_one, tmp_path / "all")
    cloud, whole = (checkpoint.read(tmp_path / name / "checkpoint.npz") for name in ("cloud", "all"))
    assert_close_tree(cloud[0], whole[0], 1e-12)
    # The cloud does not know how the owner resized the images.
    assert whole[1].resize == "centre_crop"
    assert cloud[1] == dataclasses.replace(whole[1], resize="")


@pytest.mark.slow
def test_decrypted_images_are_plain_ones(folder, tmp_path):
    result = experiment.run(_config(folder, "decrypted", "embedded"), tmp_path)
    assert (result["encryption"], result["key_fingerprint"], result["adapt"]) == ("none", None, False)


@pytest.mark.slow
def test_a_new_model_may_learn_from_any_images(folder, tmp_path):
    result = experiment.run(_config(folder, model=""), tmp_path)
    assert (result["encryption"], result["adapt"]) == ("bs+ps", False)
    metadata = checkpoint.read(tmp_path / "checkpoint.npz")[1]
    assert (metadata.encryption, metadata.images) == ("none", ("bs+ps", result["key_fingerprint"]))


@pytest.mark.slow
def test_an_override_trains_and_leaves_the_models_key_in_its_metadata(folder, tmp_path):
    result = experiment.run(_config(folder, "other", allow_mismatch=True), tmp_path)
    metadata = checkpoint.read(tmp_path / "checkpoint.npz")[1]
    adapted = dataclasses.replace(checkpoint.read(folder / "adapted.npz")[1], class_names=("a", "b"))
    assert metadata == adapted.trained_on("bs+ps", result["key_fingerprint"])
    assert metadata.key_fingerprint != result["key_fingerprint"] == _manifest(folder / "other")["key_fingerprint"]


def _manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


REFUSED = {
    "another key": (
        {"images": "other"},
        r"adapted.npz is adapted to 'bs\+ps' \(key fingerprint \w{32}\), but the images in .*other are "
        r"encrypted with 'bs\+ps' \(key fingerprint \w{32}\)",
    ),
    "plain images": ({"images": "plain"}, "adapted.npz is adapted to .* but the images in .*plain count as plain"),
    "decrypted images": ({"images": "decrypted"}, "but the images in .*decrypted are plain: use"),
    "plain model": ({"model": "embedded"}, r"embedded is a plain model, but the images in .* encrypted with 'bs\+ps'"),
    "encrypting twice": ({"encryption": "bs"}, "are already encrypted with 'bs.ps': set config.encryption=none"),
    "augmentation": ({"augmentation": "flip"}, "config.augmentation=flip would break the encrypted images"),
    "per-channel normalization": ({"mean": (0.4, 0.5, 0.6)}, "use the same for all three"),
    "another size": (
        {"image_size": 64, "model": "embedded", "allow_mismatch": True},
        "have 32x32 pixels but the model takes 64x64, and encrypted images cannot be resized",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_belong_together_is_refused(folder, tmp_path, case):
    fields, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        experiment.run(_config(folder, **fields), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_blocks_of_another_size_are_refused(folder, tmp_path):
    options = ["--key", folder / "1.key", "--input", folder / "plain", "--output", tmp_path / "blocks"]
    _run("encrypt", *options, "--image-size=32", "--patch-size=4")
    config = _config(folder)
    config.data.dir = str(tmp_path / "blocks")
    with pytest.raises(UserError, match="blocks of 4x4, but the model has patches of 8x8"):
        experiment.run(config, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "train/a/00000016.png").write_bytes(b"x"), r"00000016.png is not the file that the manifest"),
        (lambda f: (f / "train/a/00000016.png").unlink(), r"00000016.png is missing, but in the manifest"),
        (lambda f: (f / "train/a/00000016.png").rename(f / "train/b/x.png"), r"b/x.png is not in the manifest"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is damaged"),
    ],
)
def test_a_damaged_folder_is_refused(folder, tmp_path, damage, message):
    _run("encrypt", "--key", folder / "1.key", "--input", folder / "plain", "--output", tmp_path / "images", *SIZES)
    damage(tmp_path / "images")
    config = _config(folder)
    config.data.dir = str(tmp_path / "images")
    with pytest.raises(UserError) as caught:
        experiment.run(config, tmp_path / "run")
    assert re.search(message, str(caught.value)) and "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_tfds_data_set_that_is_encrypted(folder, tmp_path):
    from helpers.toy import build

    build(tmp_path / "data", fixed=True)
    options = ["--tfds=toy", "--data-dir", tmp_path / "data", "--output", tmp_path / "encrypted"]
    _run("encrypt", "--key", folder / "1.key", *options, *SIZES)
    config = _config(folder, dtype="float64")
    config.data.source, config.data.name, config.data.dir = "tfds", "toy", str(tmp_path / "encrypted")
    config.data.train_examples = 16
    result = experiment.run(config, tmp_path / "cloud")
    assert (result["encryption"], result["adapt"], result["train_examples"]) == ("bs+ps", True, 16)
    config.checkpoint, config.data.dir = "embedded", str(tmp_path / "data")
    plain = experiment.run(config, tmp_path / "plain")
    np.testing.assert_allclose(result["train_loss"], plain["train_loss"], rtol=1e-9)
    shard = next((tmp_path / "encrypted").rglob("*train.array_record*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    config.checkpoint, config.data.dir = str(folder / "adapted.npz"), str(tmp_path / "encrypted")
    with pytest.raises(UserError, match=r"train.array_record-00000-of-00001 is not the file that the manifest"):
        experiment.run(config, tmp_path / "damaged")
