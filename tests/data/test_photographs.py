"""The embedded photographs: where they come from, and what their crops show."""

import re
import sys

import numpy as np
import pytest
import skimage.data
from helpers.command import ROOT
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ppvit_jax.data import photographs
from ppvit_jax.data.digits import load_digits
from ppvit_jax.data.photographs import PHOTOGRAPHS, crops, load_photographs
from ppvit_jax.errors import UserError

ASSETS = ROOT / "ppvit_jax" / "assets"
ORIGINALS = {
    "astronaut": skimage.data.astronaut,
    "cat": skimage.data.chelsea,
    "coffee": skimage.data.coffee,
    "bricks": skimage.data.brick,
    "grass": skimage.data.grass,
    "gravel": skimage.data.gravel,
}


def read(photograph) -> np.ndarray:
    with Image.open(ASSETS / photograph.file) as picture:
        return np.asarray(picture.convert("RGB"))


def pixels(region) -> np.ndarray:
    """A mask of the region in a canvas that holds every photograph."""
    mask = np.zeros((320, 320), bool)
    mask[region.top : region.bottom, region.left : region.right] = True
    return mask


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda photograph: photograph.name)
def test_an_asset_is_scikit_images_photograph_at_half_its_size(photograph):
    picture, original = read(photograph), ORIGINALS[photograph.name]()
    if original.ndim == 2:
        original = np.repeat(original[..., None], 3, axis=-1)
    height, width = picture.shape[:2]
    assert (height, width) == (original.shape[0] // 2, original.shape[1] // 2)
    means = original[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).mean((1, 3))
    np.testing.assert_array_equal(picture, np.floor(means + 0.5))


def test_every_photograph_has_its_source_and_license_beside_it():
    text = (ASSETS / "README.md").read_text()
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `photograph")}
    assert set(rows) == {photograph.file for photograph in PHOTOGRAPHS} == {p.name for p in ASSETS.glob("*.png")}
    for photograph in PHOTOGRAPHS:
        row = rows[photograph.file]
        assert f"skimage.data.{ORIGINALS[photograph.name].__name__}`" in row
        assert re.search(r"\| (CC0|public domain) \|$", row)
    assert sum(path.stat().st_size for path in ASSETS.glob("*.png")) < 500_000


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda photograph: photograph.name)
def test_training_and_test_crops_share_no_pixel(photograph):
    height, width = read(photograph).shape[:2]
    assert not (pixels(photograph.train) & pixels(photograph.test)).any()
    for split, region in (("train", photograph.train), ("test", photograph.test)):
        assert 0 <= region.left < region.right <= width and 0 <= region.top < region.bottom <= height
        drawn = crops(photograph, split)
        for crop in drawn:
            assert region.left <= crop.left and crop.left + crop.side <= region.right
            assert region.top <= crop.top and crop.top + crop.side <= region.bottom
        assert len({crop.side for crop in drawn}) > 15, "several scales"
        assert {(crop.mirrored, crop.gray) for crop in drawn} == {(a, b) for a in (True, False) for b in (True, False)}


@pytest.mark.slow
def test_pixels_outside_a_region_do_not_matter(monkeypatch):
    sources = load_photographs()[:2]
    original = photographs._read

    def only(split):
        def read_region(photograph):
            region = photograph.train if split == "train" else photograph.test
            picture, box = original(photograph), tuple(region)
            blank = Image.new("RGB", picture.size, (255, 0, 255))
            blank.paste(picture.crop(box), box)
            return blank

        return read_region

    for number, split in enumerate(("train", "test")):
        monkeypatch.setattr(photographs, "_read", only(split))
        loaded = load_photographs()[:2]
        np.testing.assert_array_equal(loaded[number].images, sources[number].images)
        assert (loaded[1 - number].images != sources[1 - number].images).any()


def test_every_class_has_as_many_images_and_all_are_different():
    train, test, names = load_photographs()
    assert names == tuple(ORIGINALS)
    for source, count in ((train, 64), (test, 90)):
        assert source.image_shape == (64, 64, 3) and source.images.dtype == np.uint8
        assert source.labels.dtype == np.int32 and np.bincount(source.labels).tolist() == [count] * 6
    images = [image.tobytes() for source in (train, test) for image in source.images]
    assert len(set(images)) == len(images)


@pytest.mark.slow
def test_colors_alone_do_not_decide():
    train, test, _ = load_photographs()

    def histograms(images):
        """Shares of 64 colors."""
        colors = (images // 64).astype(int) @ np.array([16, 4, 1])
        return np.stack([np.bincount(image.ravel(), minlength=64) for image in colors]) / 64**2

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    accuracy = classifier.fit(histograms(train.images), train.labels).score(histograms(test.images), test.labels)
    assert accuracy < 0.6


def test_digits_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UserError, match=r"digits needs scikit-learn: run pip install 'ppvit-jax\[tables\]'"):
        load_digits()
