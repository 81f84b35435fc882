"""`load`: every data source behind one configuration."""

from __future__ import annotations

from typing import Any

import ml_collections
import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from ppvit_jax import data
from ppvit_jax.data import dataset
from ppvit_jax.data.settings import DataSettings
from ppvit_jax.data.source import ArraySource
from ppvit_jax.errors import UserError


def config(**changes) -> ml_collections.ConfigDict:
    fields = {
        "source": "embedded",
        "name": "digits",
        "dir": "",
        "train_split": "train",
        "test_split": "val",
        "test_fraction": 0.25,
        "resize": "centre_crop",
        "max_pixels": 89_478_485,
        "train_examples": 0,
        "test_examples": 0,
        "in_memory": "auto",
    }
    return ml_collections.ConfigDict(fields | changes)


def make_folder(root):
    for name, count in (("ant", 8), ("bee", 12)):
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (5, 5), (index, count, 0)).save(root / name / f"{index}.png")
    return root


def images_of(source) -> list[bytes]:
    return [source.fetch(index).tobytes() for index in range(len(source))]


def test_digits_are_scikit_learns():
    loaded = data.load(config(), 32)
    assert loaded.name == "digits" and loaded.class_names == tuple("0123456789")
    assert (len(loaded.train), len(loaded.test)) == (1437, 360)
    original: Any = datasets.load_digits()
    expected = [(values, label) for values, label in zip(original.images, original.target, strict=True)]
    found = []
    for source in (loaded.train, loaded.test):
        assert source.image_shape == (8, 8, 3) and source.labels.dtype == np.int32
        for index in range(len(source)):
            image = source.fetch(index)
            assert image.dtype == np.uint8
            assert (image == image[..., :1]).all()
            found.append((image[..., 0], source.labels[index]))

    # Values 0 to 16 become 0 to 255, within half a step of the exact value, and each keeps its frequency.
    def keys(pairs, scale):
        return sorted((tuple(np.rint(values.ravel() * scale).astype(int)), int(label)) for values, label in pairs)

    assert keys(found, 16 / 255) == keys(expected, 1)
    exact = {tuple(values.ravel().astype(int)): values * 255 / 16 for values, _ in expected}
    for image, _ in found:
        assert np.abs(exact[tuple(np.rint(image.ravel() * (16 / 255)).astype(int))] - image).max() <= 0.5
    shares = np.bincount(loaded.test.labels) / np.bincount(original.target)
    assert np.abs(shares - 360 / 1797).max() < 0.01


def test_digits_split_does_not_depend_on_the_seed():
    first, second = data.load(config(), 32, seed=0), data.load(config(), 32, seed=1)
    np.testing.assert_array_equal(first.test.labels, second.test.labels)
    assert images_of(first.test) == images_of(second.test)


def test_subsets_are_seeded_and_nested():
    def train(examples, seed):
        loaded = data.load(config(train_examples=examples, test_examples=7), 32, seed=seed)
        assert len(loaded.test) == 7
        return images_of(loaded.train)

    assert len(train(50, 0)) == 50
    assert train(50, 0) == train(50, 0) != train(50, 1)
    assert set(train(20, 0)) < set(train(50, 0))


@pytest.mark.parametrize("in_memory", ["auto", True, False, "True"])
def test_image_folder(tmp_path, in_memory):
    root = make_folder(tmp_path / "insects")
    loaded = data.load(config(source="image_folder", dir=str(root), in_memory=in_memory), 4)
    assert loaded.name == "insects" and loaded.class_names == ("ant", "bee")
    assert (len(loaded.train), len(loaded.test)) == (15, 5)
    assert sorted(loaded.train.labels) == [0] * 6 + [1] * 9
    for source in (loaded.train, loaded.test):
        assert source.image_shape == (4, 4, 3)
        for index in range(len(source)):
            assert source.fetch(index)[2, 3, 1] == (8, 12)[source.labels[index]]


@pytest.mark.slow
def test_image_folder_subset_and_splits(tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "val")
    loaded = data.load(config(source="image_folder", dir=str(tmp_path), train_examples=6), 4)
    assert (len(loaded.train), len(loaded.test)) == (6, 20)
    batches = list(data.test_batches(loaded.test, data.BatchOptions(8)))
    assert sum(batch["mask"].sum() for batch in batches) == 20
    np.testing.assert_array_equal(np.concatenate([b["label"] for b in batches])[:20], [0] * 8 + [1] * 12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "web"}, r"data\.source is 'web': choose among 'tfds', 'image_folder', 'embedded'"),
        ({"resize": "pad"}, r"data\.resize is 'pad': choose among 'center_crop', 'squash'"),
        ({"in_memory": "yes"}, r"data\.in_memory is 'yes'"),
        ({"max_pixels": 0}, r"data\.max_pixels is 0"),
        ({"max_pixels": 10**9}, r"data\.max_pixels is 1000000000: .*Pillow's own limit"),
        ({"name": "mnist"}, "no embedded data set 'mnist'"),
        ({"train_examples": 1438}, r"data\.train_examples is 1438, but there are 1437"),
        ({"test_examples": -1}, r"data\.test_examples is -1"),
        ({"source": "image_folder"}, r"data\.dir is empty"),
    ],
)
def test_wrong_fields(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        data.load(config(**changes), 32)
    assert "\n" not in str(caught.value)


def test_center_crop_has_two_spellings_and_one_value():
    names = ("center_crop", "centre_crop")
    assert {DataSettings.from_config(config(resize=name), 32, 0).resize for name in names} == {"centre_crop"}


def test_wrong_size_and_seed():
    with pytest.raises(UserError, match="image size is 0"):
        data.load(config(), 0)
    with pytest.raises(UserError, match="seed is -1"):
        data.load(config(), 32, seed=-1)


def test_a_source_is_one_entry_of_the_table(monkeypatch):
    asked = []

    def load_zeros(settings):
        size = settings.image_size
        asked.append((settings.name, size, settings.seed))
        source = ArraySource(np.zeros((2, size, size, 3), np.uint8), np.zeros(2, np.int32))
        return data.Dataset("zeros", source, source, ("zero",))

    monkeypatch.setitem(dataset.SOURCES, "zeros", load_zeros)
    assert data.load(config(source="zeros", name="all"), 4, seed=3).train.image_shape == (4, 4, 3)
    assert asked == [("all", 4, 3)]
    with pytest.raises(UserError, match=r"choose among 'tfds', 'image_folder', 'embedded', .*'zeros'"):
        data.load(config(source="ones"), 4)
