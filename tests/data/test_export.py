"""Data sets written as image folders, and `ppvit prepare` for those in the package."""

import numpy as np
import pytest

from ppvit_jax.config import default_config
from ppvit_jax.data import dataset as data
from ppvit_jax.data.export import write_image_folder
from ppvit_jax.data.source import ArraySource, Dataset, Source
from ppvit_jax.errors import UserError


def small_dataset(class_names: tuple[str, ...] = ("a cat", "flower")) -> Dataset:
    generator = np.random.default_rng(0)
    train, test = (
        ArraySource(generator.integers(0, 256, (count, 8, 8, 3)).astype(np.uint8), np.arange(count, dtype=np.int32) % 2)
        for count in (11, 4)
    )
    return Dataset("small", train, test, class_names)


def read_folder(folder, image_size: int) -> Dataset:
    config = default_config()
    config.data.source = "image_folder"
    config.data.dir = str(folder)
    return data.load(config.data, image_size)


def as_set(source: Source) -> set[tuple[int, bytes]]:
    return {(int(label), source.fetch(index).tobytes()) for index, label in enumerate(source.labels)}


def test_what_is_written_is_read_back_value_by_value(tmp_path):
    written = small_dataset()
    write_image_folder(written, tmp_path / "new" / "images")
    read = read_folder(tmp_path / "new" / "images", 8)
    assert read.class_names == written.class_names
    assert len(read.train) == 11 and len(read.test) == 4
    assert as_set(read.train) == as_set(written.train) and as_set(read.test) == as_set(written.test)
    assert (tmp_path / "new" / "images" / "train" / "a cat" / "00.png").is_file()


def test_an_existing_folder_is_left_as_it_is(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists: choose a new folder"):
        write_image_folder(small_dataset(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["../up", "a/b", "..", ""])
def test_a_class_name_that_is_no_folder_name_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(UserError, match="cannot be the name of a folder"):
        write_image_folder(small_dataset(("a", name)), tmp_path / "images")
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing_behind(tmp_path):
    images = np.zeros((3, 8, 8, 3), np.uint8)
    broken = ArraySource(images, np.array([0, 1, 7], np.int32))
    with pytest.raises(IndexError):
        write_image_folder(Dataset("broken", small_dataset().train, broken, ("a", "b")), tmp_path / "images")
    assert not list(tmp_path.iterdir())
