"""Prepared tfds folders: finding, reading, and rejecting damaged ones."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.toy import COUNTS, build, pixels, varying
from PIL import Image

from ppvit_jax.data import images, tfds_source
from ppvit_jax.data.source import ArraySource, StreamSource, subset
from ppvit_jax.errors import UserError

SHARED = Path(__file__).parents[3] / "shared/data/tfds"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data sets are not at ../shared/data/tfds")


def order(folder: Path, split: str) -> list[int]:
    """Returns the numbers of the examples in the order in which tfds itself reads the records."""
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(folder)
    return [int(example["number"]) for example in builder.as_data_source(split)]


@pytest.fixture(scope="module")
def fixed(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("fixed"), fixed=True)


@pytest.fixture(scope="module")
def varied(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("varied"), fixed=False)


def source(
    folder: Path,
    split: str = "train",
    max_pixels: int = 1000,
    in_memory: bool | str = "auto",
    examples: int = 0,
    seed: int = 0,
) -> ArraySource | StreamSource:
    records = tfds_source.Records(folder, split)
    chosen = subset(len(records), examples, seed, "examples")
    return tfds_source.make_source(
        records, chosen, images.ImageReader(6, "centre_crop", max_pixels), in_memory=in_memory
    )


@pytest.mark.parametrize("in_memory", ["auto", True, False])
@pytest.mark.parametrize("split", COUNTS)
def test_images_of_one_size_keep_every_pixel(fixed, split, in_memory):
    result, numbers = source(fixed, split, in_memory=in_memory), order(fixed, split)
    assert isinstance(result, StreamSource if in_memory is False else ArraySource)
    assert len(result) == COUNTS[split] and result.image_shape == (8, 9, 3)
    assert result.labels.dtype == np.int32
    np.testing.assert_array_equal(result.labels, np.array(numbers) % 3)
    assert sorted(numbers) == list(range(COUNTS[split]))
    for position, number in enumerate(numbers):
        np.testing.assert_array_equal(result.fetch(position), pixels(number, (8, 9, 3)))


@pytest.mark.parametrize("in_memory", ["auto", True, False])
def test_images_of_varying_size_are_resized(varied, in_memory):
    result, numbers = source(varied, in_memory=in_memory), order(varied, "train")
    assert isinstance(result, ArraySource if in_memory is True else StreamSource)
    assert result.image_shape == (6, 6, 3)
    np.testing.assert_array_equal(result.labels, np.array(numbers) % 3)
    for position in (0, 1, 150, 299):
        image = Image.fromarray(pixels(numbers[position], varying(numbers[position])))
        np.testing.assert_array_equal(result.fetch(position), images.fit(image, 6, "centre_crop"))


def test_large_sets_are_not_decoded_into_memory_by_themselves(fixed, monkeypatch):
    monkeypatch.setattr(tfds_source, "IN_MEMORY_BYTES", COUNTS["train"] * 8 * 9 * 3)
    assert isinstance(source(fixed), StreamSource)
    monkeypatch.setattr(tfds_source, "IN_MEMORY_BYTES", COUNTS["train"] * 8 * 9 * 3 + 1)
    assert isinstance(source(fixed), ArraySource)


def test_grayscale_becomes_rgb(tmp_path):
    folder = build(tmp_path, fixed=True, gray=True)
    result, numbers = source(folder, "test"), order(folder, "test")
    np.testing.assert_array_equal(result.fetch(2), np.repeat(pixels(numbers[2], (8, 9, 1)), 3, axis=-1))


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_subset_is_a_subset(fixed, in_memory):
    whole, part = source(fixed), source(fixed, examples=20, seed=3, in_memory=in_memory)
    assert len(part) == 20
    known = {whole.fetch(i).tobytes(): int(whole.labels[i]) for i in range(len(whole))}
    assert len({part.fetch(i).tobytes() for i in range(20)}) == 20
    for i in range(20):
        assert known[part.fetch(i).tobytes()] == part.labels[i]
    other = source(fixed, examples=20, seed=4)
    assert {other.fetch(i).tobytes() for i in range(20)} != {part.fetch(i).tobytes() for i in range(20)}


def test_too_many_pixels_are_refused_by_name(fixed):
    with pytest.raises(UserError, match=r"image \d+ of .*\(train\) has 9 x 8 pixels"):
        source(fixed, max_pixels=71)


def test_finds_the_newest_version_a_given_one_and_a_folder_itself(tmp_path, fixed):
    for version in ("1.2.0", "1.10.0", "1.9.3"):
        shutil.copytree(fixed, tmp_path / "toy" / version)
    (tmp_path / "toy/incomplete.ABC_2.0.0").mkdir()
    shutil.copy(fixed / "dataset_info.json", tmp_path / "toy/incomplete.ABC_2.0.0")
    assert tfds_source.find_prepared("toy", str(tmp_path)).name == "1.10.0"
    assert tfds_source.find_prepared("toy:1.9.3", str(tmp_path)).name == "1.9.3"
    assert tfds_source.find_prepared("toy", str(tmp_path / "toy/1.2.0")).name == "1.2.0"
    with pytest.raises(UserError, match=r"'toy' version 3\.0\.0"):
        tfds_source.find_prepared("toy:3.0.0", str(tmp_path))
    with pytest.raises(UserError, match="holds the data set 'toy', not 'cifar10'"):
        tfds_source.find_prepared("cifar10", str(tmp_path / "toy/1.2.0"))


def test_finds_variants(tmp_path, fixed):
    for variant in ("160px", "320px"):
        shutil.copytree(fixed, tmp_path / "toy" / variant / "1.0.0")
    assert tfds_source.find_prepared("toy/320px", str(tmp_path)) == tmp_path / "toy/320px/1.0.0"
    with pytest.raises(UserError, match=r"choose one in data\.name \(toy/160px, toy/320px\)"):
        tfds_source.find_prepared("toy", str(tmp_path))


def test_default_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert tfds_source.data_root("") == tmp_path
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert tfds_source.data_root("") == Path.home() / "tensorflow_datasets"
    assert tfds_source.data_root("~/x") == Path.home() / "x"


def test_a_missing_set_says_where_and_how(tmp_path):
    with pytest.raises(UserError) as caught:
        tfds_source.find_prepared("cifar10", str(tmp_path))
    assert f"in {tmp_path}: " in str(caught.value)
    assert f"`ppvit prepare cifar10 --data-dir {tmp_path}`" in str(caught.value)
    with pytest.raises(UserError, match=r"tfds build imagenette/320px-v2 .*array_record"):
        tfds_source.find_prepared("imagenette/320px-v2", str(tmp_path))
    with pytest.raises(UserError, match=r"data\.name is empty"):
        tfds_source.find_prepared("", str(tmp_path))


def test_unknown_split_names_those_there_are(fixed):
    with pytest.raises(UserError, match="no split 'validation': choose among test, train"):
        tfds_source.Records(fixed, "validation")


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_other_formats_and_features_are_refused(tmp_path, fixed):
    tfrecord, plain = shutil.copytree(fixed, tmp_path / "1"), shutil.copytree(fixed, tmp_path / "2")
    rewrite(tfrecord / "dataset_info.json", fileFormat="tfrecord")
    with pytest.raises(UserError, match="not in the array_record format"):
        tfds_source.Records(tfrecord, "train")
    text = (plain / "features.json").read_text()
    (plain / "features.json").write_text(text.replace('"label"', '"target"'))
    with pytest.raises(UserError, match="lacks the features 'image' and 'label'"):
        tfds_source.Records(plain, "train")


@pytest.mark.parametrize("damage", ["half", "end", "empty", "noise", "flip", "absent", "info", "features"])
def test_damaged_files_are_one_clear_line(tmp_path, fixed, damage):
    folder = shutil.copytree(fixed, tmp_path / "1.0.0")
    (records,) = folder.glob("*-train.array_record*")
    data = bytearray(records.read_bytes())
    match damage:
        case "half":
            records.write_bytes(data[: len(data) // 2])
        case "end":
            records.write_bytes(data[:-100])
        case "empty":
            records.write_bytes(b"")
        case "noise":
            records.write_bytes(np.random.default_rng(0).bytes(len(data)))
        case "flip":
            # The damage must be inside the images: the rest of a small file is padding.
            start = data.index(b"IDAT") + 100
            data[start : start + 8] = bytes(255 - value for value in data[start : start + 8])
            records.write_bytes(data)
        case "absent":
            records.unlink()
        case "info":
            (folder / "dataset_info.json").write_text('{"name": "toy"')
        case "features":
            (folder / "features.json").unlink()
    with pytest.raises(UserError, match="damaged, prepare the data set again") as caught:
        source(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_size_other_than_announced_is_refused(tmp_path, fixed):
    folder = shutil.copytree(fixed, tmp_path / "1.0.0")
    text = (folder / "features.json").read_text()
    (folder / "features.json").write_text(text.replace('"8"', '"9"'))
    with pytest.raises(UserError, match="is 8 x 9, but its data set says 9 x 9"):
        source(folder)


@needs_shared
@pytest.mark.parametrize(
    ("name", "splits", "side", "classes"),
    [
        ("cifar10", {"train": 50_000, "test": 10_000}, 32, 10),
        ("tiny_imagenet", {"train": 100_000, "validation": 10_000}, 64, 200),
    ],
)
def test_real_data_equals_tfds_own_decoding(name, splits, side, classes):
    import tensorflow_datasets as tfds

    folder = tfds_source.find_prepared(name, str(SHARED))
    for split, count in splits.items():
        records = tfds_source.Records(folder, split)
        assert len(records) == count and len(records.class_names) == classes and records.name == name
        part = source(folder, split, examples=40, max_pixels=10_000)
        assert part.image_shape == (side, side, 3)
        chosen = subset(count, 40, 0, "")
        builder: Any = tfds.builder_from_directory(folder)
        oracle = builder.as_data_source(split)
        for position, index in enumerate(chosen):
            np.testing.assert_array_equal(part.fetch(position), oracle[int(index)]["image"])
            assert part.labels[position] == oracle[int(index)]["label"]
    assert "tensorflow" not in sys.modules
