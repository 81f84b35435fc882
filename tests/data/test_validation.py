"""Validation images: fractions of the training images, splits by name in every source, and overlaps."""

from typing import Any

import numpy as np
import pytest
from helpers import labeled
from helpers.toy import build

from ppvit_jax.config import default_config
from ppvit_jax.data import load
from ppvit_jax.data.source import ArraySource, Dataset, StreamSource
from ppvit_jax.data.validation import add_validation
from ppvit_jax.errors import UserError


def _dataset(labels, groups=None, *, streams=False):
    labels = np.array(labels, np.int32)
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    train = ArraySource(images, labels)
    if streams:
        train = StreamSource(labels, (2, 2, 3), lambda index: images[index])
    return Dataset("toy", train, train, ("a", "b", "c"), train_groups=groups)


def _add(dataset, validation, seed) -> Any:
    return add_validation(dataset, validation, seed)


def _numbers(source):
    return [int(source.fetch(index)[0, 0, 0]) for index in range(len(source))]


@pytest.mark.parametrize("streams", [False, True])
def test_a_fraction_of_each_class_leaves_training(streams):
    labels = [0] * 20 + [1] * 10 + [2] * 4
    held = _add(_dataset(labels, streams=streams), "0.25", seed=3)
    assert np.bincount(held.validation.labels).tolist() == [5, 2, 1]
    assert np.bincount(held.train.labels).tolist() == [15, 8, 3]
    assert sorted(_numbers(held.train) + _numbers(held.validation)) == list(range(34))
    assert [labels[number] for number in _numbers(held.validation)] == held.validation.labels.tolist()
    assert held.train.image_shape == held.validation.image_shape == (2, 2, 3)


def test_the_seed_alone_draws_the_fraction():
    draws = [_numbers(_add(_dataset([0, 1] * 30), "0.2", seed).validation) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_copies_of_an_image_stay_together():
    groups = np.repeat(np.arange(12), 3)
    held = _add(_dataset(np.repeat([0, 1], 18), groups), "0.3", seed=0)
    validation = set(groups[_numbers(held.validation)])
    assert len(held.validation) == 3 * len(validation) == 12
    assert not validation & set(groups[_numbers(held.train)])
    assert held.train_groups.tolist() == groups[_numbers(held.train)].tolist()


def test_a_class_with_one_image_stays_in_training():
    held = _add(_dataset([0, 1, 1, 1]), "0.9", seed=0)
    assert _numbers(held.train)[0] == 0 and len(held.validation) == 2
    with pytest.raises(UserError, match="every class has a single training image: add images"):
        _add(_dataset([0, 1, 2]), "0.5", seed=0)


def test_images_with_several_labels_are_drawn_together():
    labels = np.eye(3, dtype=np.uint8)[[0, 1, 2, 0, 1]]
    held = _add(_dataset(labels), "0.4", seed=0)
    assert held.validation.labels.shape == (2, 3) and held.train.labels.shape == (3, 3)


@pytest.mark.parametrize("text", ["0", "1", "1.5", "-0.1", "nan", "inf"])
def test_a_fraction_is_between_0_and_1(text):
    with pytest.raises(UserError, match=r"config\.data\.validation is .*: give a fraction between 0 and 1"):
        _add(_dataset([0, 1]), text, seed=0)


def test_a_name_needs_a_source_with_such_a_split():
    with pytest.raises(UserError, match="'val', but toy has no such split: give a fraction"):
        _add(_dataset([0, 1]), "val", seed=0)


def _load(source, **fields) -> Any:
    config = default_config().data
    config.update(source=source, **fields)
    return load(config, 6, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("folder") / "images"
    labeled.write_folder(path, ("train", "val", "test", "extra"))
    return path


def test_an_image_folder_has_a_validation_split(folder, capsys):
    dataset = _load("image_folder", dir=str(folder), validation="validation")
    assert (len(dataset.train), len(dataset.test), len(dataset.validation)) == (8, 8, 8)
    errors = capsys.readouterr().err
    assert "validation images: val\n" in errors and "not used: extra (8 images)" in errors
    without = _load("image_folder", dir=str(folder))
    assert without.validation is None and without.digest != dataset.digest
    assert len(_load("image_folder", dir=str(folder), validation="extra").validation) == 8
    fraction = _load("image_folder", dir=str(folder), validation="0.25")
    assert (len(fraction.train), len(fraction.test), len(fraction.validation)) == (6, 8, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"validation": "train"}, "'train', which overlaps the training split 'train'"),
        ({"validation": "training"}, "'training', which overlaps the training images .*train"),
        ({"validation": "test"}, "'test', which overlaps the test images"),
        ({"validation": "val", "test_split": "validation"}, "'val', which overlaps the test images"),
        ({"validation": "dev"}, "has no folder 'dev': correct data.validation"),
    ],
)
def test_a_folder_that_is_used_already_is_refused(folder, fields, message):
    with pytest.raises(UserError, match=message):
        _load("image_folder", dir=str(folder), **fields)


def test_a_folder_of_copied_training_images_is_refused(folder, tmp_path, capsys):
    for split in ("train", "test"):
        (tmp_path / split).symlink_to(folder / split)
    (tmp_path / "val").mkdir()
    for name in ("ant", "bee"):
        (tmp_path / "val" / name).symlink_to(folder / "train" / name)
    with pytest.raises(UserError, match=r"every validation image is a training image, such as .*val/ant/0\.png"):
        _load("image_folder", dir=str(tmp_path), validation="val")
    (tmp_path / "val" / "bee").unlink()
    (tmp_path / "val" / "bee").symlink_to(folder / "val" / "bee")
    assert len(_load("image_folder", dir=str(tmp_path), validation="val").validation) == 8
    assert "4 validation images are training images too" in capsys.readouterr().err


def test_a_folder_with_another_class_is_refused(folder, tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).symlink_to(folder / split)
    labeled.write_images(tmp_path, ["val/wasp/0.png"])
    with pytest.raises(UserError, match="val has the class 'wasp', which the training images lack"):
        _load("image_folder", dir=str(tmp_path), validation="val")


def test_a_csv_has_a_validation_split(folder, tmp_path):
    rows = labeled.write_folder(tmp_path / "i", ("train", "dev", "test"))
    lines = [(f"i/{path}", name, split) for split, name, path in rows]
    file = labeled.write_csv(tmp_path / "list.csv", lines, ("path", "label", "split"))
    dataset = _load("csv", dir=str(file), validation="dev")
    assert (len(dataset.train), len(dataset.test), len(dataset.validation)) == (8, 8, 8)
    assert len(_load("csv", dir=str(file), validation="0.25").validation) == 2
    with pytest.raises(UserError, match=r"has no split 'val': choose among train, dev, test in data\.validation"):
        _load("csv", dir=str(file), validation="val")
    with pytest.raises(UserError, match="which overlaps the training images"):
        _load("csv", dir=str(file), validation="training")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return build(tmp_path_factory.mktemp("prepared"), fixed=True)


def test_a_tfds_data_set_has_slices_to_validate_on(prepared):
    fields = {"name": "toy", "dir": str(prepared)}
    dataset = _load("tfds", **fields, train_split="train[:80%]", validation="train[80%:]")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (240, 60, 5)
    assert not {image.tobytes() for image in dataset.train.images} & {i.tobytes() for i in dataset.validation.images}
    assert len(_load("tfds", **fields, validation="0.1").validation) == 30


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"validation": "train[:10%]"}, r"'train\[:10%\]', which overlaps the training split 'train', .* give another"),
        ({"train_split": "train[:80%]", "validation": "train[79%:]"}, "overlaps the training split"),
        ({"validation": "test[1:2]"}, "overlaps the test images"),
        ({"validation": "val"}, "has no split 'val': choose among test, train in data.validation"),
    ],
)
def test_slices_that_overlap_are_refused(prepared, fields, message):
    with pytest.raises(UserError, match=message):
        _load("tfds", name="toy", dir=str(prepared), **fields)


def test_an_embedded_data_set_has_fractions_alone():
    dataset = _load("embedded", name="digits", validation="0.1")
    assert len(dataset.train) + len(dataset.validation) == 1437 and len(dataset.test) == 360
    with pytest.raises(UserError, match="digits has no such split: give a fraction"):
        _load("embedded", name="digits", validation="val")
