import numpy as np
import pytest
from helpers.images import write_images

from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.listing import open_files
from ppvit_jax.errors import UserError

READER = ImageReader(16, "centre_crop", 10_000)


def _outputs(path, keep_names=False):
    images = open_files(path, READER, keep_names=keep_names, manifest=None)
    return {
        split.original(index): (split.name, split.output(index))
        for split in images.splits
        for index in range(split.count)
    }


LAYOUTS = {
    "classes": (["dog/b.png", "cat/x.png", "cat/a.png"], {
        "cat/a.png": ("", "cat/00000000"),
        "cat/x.png": ("", "cat/00000001"),
        "dog/b.png": ("", "dog/00000002"),
    }),
    "classes with folders inside": (["cat/Smith/a.png", "cat/b.png"], {
        "cat/Smith/a.png": ("", "cat/00000000"),
        "cat/b.png": ("", "cat/00000001"),
    }),
    "splits": (["train/cat/a.png", "train/dog/b.png", "test/cat/c.png", "train/cat-2/d.png"], {
        "test/cat/c.png": ("test", "test/cat/00000000"),
        "train/cat/a.png": ("train", "train/cat/00000001"),
        "train/cat-2/d.png": ("train", "train/cat-2/00000002"),
        "train/dog/b.png": ("train", "train/dog/00000003"),
    }),
    "patients are not splits": (["Smith/1/a.png", "Jones/2/b.png"], {
        "Jones/2/b.png": ("", "Jones/00000000"),
        "Smith/1/a.png": ("", "Smith/00000001"),
    }),
    "no classes": (["b.png", "Smith/a.png", "a.png"], {
        "Smith/a.png": ("", "00000000"),
        "a.png": ("", "00000001"),
        "b.png": ("", "00000002"),
    }),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_go_and_classes_stay(tmp_path, layout):
    names, expected = LAYOUTS[layout]
    write_images(tmp_path, names)
    assert _outputs(tmp_path) == expected
    kept = {name: output for name, (_, output) in _outputs(tmp_path, keep_names=True).items()}
    assert kept == {name: name.removesuffix(".png") for name in names}


def test_one_image(tmp_path):
    write_images(tmp_path, ["Smith.png", "b.png"])
    assert _outputs(tmp_path / "Smith.png") == {"Smith.png": ("", "00000000")}


def test_images_are_located_over_all_splits(tmp_path):
    written = write_images(tmp_path, ["train/a/1.png", "test/a/2.png", "train/a/3.png", "val/b/4.png"], size=16)
    images = open_files(tmp_path, READER, keep_names=True, manifest=None)
    assert images.count == 4 and [split.name for split in images.splits] == ["test", "train", "val"]
    assert [split.is_training for split in images.splits] == [False, True, False]
    for number in range(4):
        split, index = images.locate(number)
        image, label = split.read(index)
        np.testing.assert_array_equal(image, written[split.original(index)])
        assert label is None
    with pytest.raises(IndexError):
        images.locate(4)


def test_the_identity_changes_with_names_and_sizes(tmp_path):
    def identity():
        return open_files(tmp_path, READER, keep_names=False, manifest=None).identity

    write_images(tmp_path, ["a.png", "b.png"])
    first = identity()
    assert identity() == first
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    second = identity()
    (tmp_path / "c.png").write_bytes((tmp_path / "c.png").read_bytes() + b"more")
    assert len({first, second, identity()}) == 3


def test_what_is_not_an_image_is_counted(tmp_path):
    write_images(tmp_path, ["cat/a.png"])
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "cat" / "b.raw").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    assert open_files(tmp_path, READER, keep_names=False, manifest=None).ignored == 2


def test_kept_names_that_would_collide_are_refused(tmp_path):
    write_images(tmp_path, ["cat/a.png", "cat/a.jpg"])
    assert len(_outputs(tmp_path)) == 2
    with pytest.raises(UserError, match="cat/a is the name of several images"):
        _outputs(tmp_path, keep_names=True)
