"""The whole path as shell commands: the owner's folder has the key, the cloud's folder does not."""

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import ROOT
from helpers.needles import needles
from helpers.sides import Side
from PIL import Image

from ppvit_jax import keys
from ppvit_jax.data import embedded

pytestmark = pytest.mark.slow

SHARED = ROOT.parent / "shared" / "data" / "tfds" / "cifar10" / "3.0.2"
COUNT = 500
SIZES = "--image-size 64 --patch-size 8"


def _digits(folder):
    train, test, _ = embedded.load_digits()
    for split, source, count in (("train", train, COUNT - 100), ("test", test, 100)):
        for number in range(count):
            path = folder / split / f"digit {source.labels[number]}" / f"secret name {number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(source.fetch(number)).save(path)


def _cifar10(folder):
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(SHARED)
    names = builder.info.features["label"].names
    records = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    for number in range(COUNT):
        split = "test" if number % 5 == 0 else "train"
        path = folder / split / names[records[number]["label"]] / f"secret name {number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(records[number]["image"])


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(_digits, id="digits"),
        pytest.param(
            _cifar10,
            id="cifar10",
            marks=pytest.mark.skipif(not SHARED.is_dir(), reason="the real data sets are not at ../shared/data"),
        ),
    ],
)
def sides(request, tmp_path_factory):
    """The owner and the cloud after the whole path."""
    root = tmp_path_factory.mktemp(request.param.__name__)
    owner, cloud = Side(root / "owner"), Side(root / "cloud")
    request.param(owner.folder / "images")
    ppvit = f"{sys.executable} -m ppvit_jax"
    owner.run(f"{ppvit} keygen --output secret.key")
    owner.run(f"{ppvit} encrypt --key secret.key --input images --output encrypted {SIZES} --names names.csv")
    owner.run(f"{ppvit} adapt --key secret.key --checkpoint embedded --output adapted.npz --image-size 64")
    for name in ("encrypted", "adapted.npz"):
        shutil.move(owner.folder / name, cloud.folder / name)
    # The cloud must ignore a key that lies about.
    shutil.copy(owner.folder / "secret.key", root / "secret.key")
    train = (
        f"{sys.executable} -m ppvit_jax.main --config={ROOT / 'configs' / 'cloud.py'} "
        "--config.model=ViT-Micro/8 --config.image_size=64 --config.epochs=1 --config.optimizer.learning_rate=0.003"
    )
    cloud.run(f"{train} --workdir=run")
    cloud.run(f"{train} --workdir=lora --config.tuning.method=lora --config.data.train_examples=64")
    cloud.run(f"{ppvit} merge --base adapted.npz --delta lora/checkpoint.npz --output merged.npz")
    cloud.run(f"{ppvit} predict --checkpoint run/checkpoint.npz --input encrypted --output cloud.npz")
    cloud.run(f"{ppvit} predict --checkpoint run/checkpoint.npz --input encrypted --output cloud.csv")
    for form in ("stablehlo", "onnx"):
        cloud.run(f"{ppvit} export --checkpoint run/checkpoint.npz --output cloud.{form}")
    cloud.run(f"{ppvit} evaluate --checkpoint run/checkpoint.npz --input encrypted --output evaluated")
    shutil.copy(cloud.folder / "run" / "checkpoint.npz", owner.folder / "tuned.npz")
    owner.run(f"{ppvit} restore --key secret.key --checkpoint tuned.npz --output restored.npz")
    owner.run(f"{ppvit} predict --checkpoint restored.npz --input images --output plain.npz")
    owner.run(f"{ppvit} evaluate --checkpoint restored.npz --input images --output evaluated")
    return owner, cloud


def test_restored_logits_on_plain_images_are_the_clouds_on_encrypted_ones(sides):
    owner, cloud = sides
    with np.load(owner.folder / "plain.npz") as plain, np.load(cloud.folder / "cloud.npz") as encrypted:
        assert plain["logits"].shape == (COUNT, 10)
        assert np.ptp(plain["logits"]) > 1
        np.testing.assert_allclose(encrypted["logits"], plain["logits"], rtol=0, atol=1e-5)
        with (owner.folder / "names.csv").open(newline="") as file:
            originals = {f"{row['name']}.png": row["original"] for row in csv.DictReader(file)}
        assert [originals[name] for name in encrypted["files"]] == plain["files"].tolist()
    with (cloud.folder / "cloud.csv").open(newline="") as file:
        classes = {row["class"] for row in csv.DictReader(file)}
    assert classes <= {path.name for path in (owner.folder / "images" / "train").iterdir()}


def test_restored_measures_on_plain_images_are_the_clouds_on_encrypted_ones(sides):
    owner, cloud = sides
    plain, encrypted = (json.loads((s.folder / "evaluated" / "evaluation.json").read_text()) for s in (owner, cloud))
    result = json.loads((cloud.folder / "run" / "result.json").read_text())
    assert plain["metrics"]["accuracy"] == encrypted["metrics"]["accuracy"] == result["test_accuracy"]
    assert plain["metrics"]["loss"] == pytest.approx(result["test_loss"], rel=1e-5)
    assert plain["classes"] == encrypted["classes"] and encrypted["origin"]["encryption"] == "bs+ps"


def test_the_result_says_what_was_trained_on_what(sides):
    owner, cloud = sides
    result = json.loads((cloud.folder / "run" / "result.json").read_text())
    fingerprint = keys.load(owner.folder / "secret.key").fingerprint
    assert (result["encryption"], result["adapt"], result["key_fingerprint"]) == ("bs+ps", True, fingerprint)
    assert (result["train_examples"], result["test_examples"]) == (400, 100)


def test_the_cloud_neither_imports_the_keys_module_nor_opens_a_key_file(sides):
    owner, cloud = sides
    # The record can show both, as the owner's does.
    assert "import ppvit_jax.keys" in owner.record
    assert any(line.startswith("open ") and line.endswith("secret.key") for line in owner.record)
    assert "import ppvit_jax.training.loop" in cloud.record
    assert not [line for line in cloud.record if "ppvit_jax.keys" in line or line.endswith("keys.py")]
    assert not [line for line in cloud.record if line.startswith("open ") and ".key" in Path(line[5:]).name]
    assert not [line for line in cloud.record if str(owner.folder) in line]
    assert not [line for line in cloud.record if line.startswith("import cryptography")]


def test_no_secret_is_in_anything_that_the_cloud_has(sides):
    owner, cloud = sides
    key = keys.load(owner.folder / "secret.key")
    secrets = list(needles(key, image_size=64, patch_size=8))
    # The search can find secrets: in the key file, and in permutations that are written to files.
    written = key.permutation("pixel", 192)
    for hay in ((owner.folder / "secret.key").read_bytes(), written.tobytes(), json.dumps(written.tolist()).encode()):
        assert [name for name, needle in secrets if needle in hay]
    artifacts = {path: path.read_bytes() for path in cloud.folder.rglob("*") if path.is_file()}
    artifacts[Path("what both sides printed")] = (owner.printed + cloud.printed).encode()
    artifacts[Path("names of files")] = "\n".join(map(str, artifacts)).encode()
    # Arrays are searched as they are, since a file packs them.
    for path in list(artifacts):
        if path.suffix == ".npz":
            with np.load(path) as file:
                artifacts |= {path / name: file[name].tobytes() for name in file.files}
    assert len(artifacts) > COUNT and {"config.json", "metrics.jsonl", "manifest.json"} <= {p.name for p in artifacts}
    found = [(name, str(path)) for path, content in artifacts.items() for name, needle in secrets if needle in content]
    assert not found
    told = [str(path) for path, content in artifacts.items() if b"secret name" in content]
    assert told == []


def test_a_model_and_images_of_different_keys_are_refused_by_the_cloud(sides, tmp_path):
    owner, cloud = sides
    ppvit = f"{sys.executable} -m ppvit_jax"
    other = tmp_path / "other"
    owner.run(f"{ppvit} keygen --output {tmp_path}/other.key")
    owner.run(f"{ppvit} encrypt --key {tmp_path}/other.key --input images --output {other} {SIZES}")
    train = (
        f"{sys.executable} -m ppvit_jax.main --config={ROOT / 'configs' / 'cloud.py'} --workdir={tmp_path}/run "
        f"--config.model=ViT-Micro/8 --config.image_size=64 --config.epochs=1 --config.data.dir={other}"
    )
    *listing, errors = cloud.run(train, expected=1).splitlines()
    assert errors.startswith("error: ") and not any("error" in line for line in listing)
    for path in (owner.folder / "secret.key", tmp_path / "other.key"):
        assert keys.load(path).fingerprint in errors
    assert not (tmp_path / "run" / "result.json").exists()
    assert (
        json.loads(cloud.run(f"{train} --allow-mismatch"))["key_fingerprint"]
        == keys.load(tmp_path / "other.key").fingerprint
    )
