"""Published models on the whole path, as shell commands: the owner's folder has the key, the cloud's does not."""

import csv
import shutil
import sys

import numpy as np
import pytest
from helpers.command import ROOT
from helpers.oracles import draw
from helpers.pytorch import transformers
from helpers.sides import Side
from PIL import Image

from ppvit_jax.data import embedded

pytestmark = pytest.mark.slow

COUNT = 24


def _images(folder):
    train, _, _ = embedded.load_digits()
    for number in range(COUNT):
        split = "test" if number % 3 == 0 else "train"
        path = folder / split / f"digit {train.labels[number]}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(train.fetch(number)).save(path)
    # Every class must be in both parts.
    for path in list(folder.glob("*/*")):
        for split in ("train", "test"):
            if not (folder / split / path.name).exists():
                shutil.copytree(path, folder / split / path.name)


def _dinov2():
    return transformers.Dinov2Model(transformers.Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=70))


def _siglip():
    return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(image_size=64))


@pytest.mark.parametrize(
    ("make", "name", "size", "patch", "output"),
    [(_dinov2, "DINOv2-S/14", 56, 14, "tuned/"), (_siglip, "SigLIP-B/16", 48, 16, "tuned.npz")],
)
def test_the_cloud_tunes_a_published_model_on_encrypted_images(tmp_path, make, name, size, patch, output):
    owner, cloud = Side(tmp_path / "owner"), Side(tmp_path / "cloud")
    _images(owner.folder / "images")
    draw(make()).save_pretrained(owner.folder / "published")
    ppvit = f"{sys.executable} -m ppvit_jax"
    owner.run(f"{ppvit} keygen --output secret.key")
    sizes = f"--image-size {size} --patch-size {patch}"
    owner.run(f"{ppvit} encrypt --key secret.key --input images --output encrypted {sizes} --names names.csv")
    owner.run(f"{ppvit} adapt --key secret.key --checkpoint published --output adapted.npz --image-size {size}")
    for part in ("encrypted", "adapted.npz"):
        shutil.move(owner.folder / part, cloud.folder / part)
    cloud.run(
        f"{sys.executable} -m ppvit_jax.main --config={ROOT / 'configs' / 'cloud.py'} --workdir=run "
        f"--config.model={name} --config.image_size={size} --config.epochs=1 --config.batch_size=8"
    )
    cloud.run(f"{ppvit} predict --checkpoint run/checkpoint.npz --input encrypted --output cloud.npz")
    shutil.move(cloud.folder / "run" / "checkpoint.npz", owner.folder / "returned.npz")
    owner.run(f"{ppvit} restore --key secret.key --checkpoint returned.npz --output {output}")
    owner.run(f"{ppvit} predict --checkpoint {output} --input images --output plain.npz")
    with np.load(owner.folder / "plain.npz") as plain, np.load(cloud.folder / "cloud.npz") as encrypted:
        expected = plain["logits"]
        assert np.ptp(expected, axis=0).max() > 1e-3
        with (owner.folder / "names.csv").open(newline="") as file:
            originals = {f"{row['name']}.png": row["original"] for row in csv.DictReader(file)}
        assert [originals[name] for name in encrypted["files"]] == plain["files"].tolist()
        scale = max(1, abs(expected).max())
        np.testing.assert_allclose(encrypted["logits"], expected, rtol=0, atol=1e-5 * scale)
    assert not [line for line in cloud.record if "ppvit_jax.keys" in line]
