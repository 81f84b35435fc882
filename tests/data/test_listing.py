import hashlib

import numpy as np
import pytest
from helpers.images import write_images

from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.identity import content_identity, former_identity
from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.listing import open_files, open_folder
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
    "no classes": (["b.png", "a.png"], {"a.png": ("", "00000000"), "b.png": ("", "00000001")}),
    "capital splits": (["Train/ant/x.png", "Train/bus/y.png", "TESTING/ant/z.png"], {
        "TESTING/ant/z.png": ("TESTING", "TESTING/ant/00000000"),
        "Train/ant/x.png": ("Train", "Train/ant/00000001"),
        "Train/bus/y.png": ("Train", "Train/bus/00000002"),
    }),
    "a third folder beside splits": (["train/ant/x.png", "test/ant/y.png", "spare/ant/z.png"], {
        "spare/ant/z.png": ("spare", "spare/ant/00000000"),
        "test/ant/y.png": ("test", "test/ant/00000001"),
        "train/ant/x.png": ("train", "train/ant/00000002"),
    }),
    "test images without a class": (["train/ant/x.png", "train/bus/y.png", "test/Smith.png"], {
        "test/Smith.png": ("test", "test/00000000"),
        "train/ant/x.png": ("train", "train/ant/00000001"),
        "train/bus/y.png": ("train", "train/bus/00000002"),
    }),
    "stray images": (["o.png", "train/ant/x.png", "train/bus/y.png", "train/plan.png", "test/ant/z.png"], {
        "o.png": ("", "00000000"),
        "test/ant/z.png": ("test", "test/ant/00000001"),
        "train/ant/x.png": ("train", "train/ant/00000002"),
        "train/bus/y.png": ("train", "train/bus/00000003"),
        "train/plan.png": ("train", "train/00000004"),
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


def test_the_identity_changes_with_names_and_content(tmp_path):
    def identities():
        images = open_files(tmp_path, READER, keep_names=False, manifest=None)
        return content_identity(images), former_identity(images)

    write_images(tmp_path, ["a.png", "b.png"])
    first = identities()
    assert identities() == first
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    second = identities()
    content = bytearray((tmp_path / "c.png").read_bytes())
    content[-1] ^= 1
    (tmp_path / "c.png").write_bytes(content)
    third = identities()
    assert len({first[0], second[0], third[0]}) == 3
    # Former versions did not notice new content of the same size.
    assert first[1] != second[1] == third[1]


def test_a_manifest_spares_reading_the_files(tmp_path):
    write_images(tmp_path, ["a.png", "b.png"])
    without = content_identity(open_files(tmp_path, READER, keep_names=False, manifest=None))
    files = [(name, hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()) for name in ("a.png", "b.png")]
    manifests.write(tmp_path, manifests.Header("none", None, 16, 8, ""), files, None)
    images = open_files(tmp_path, READER, keep_names=False, manifest=manifests.read(tmp_path))
    (tmp_path / "b.png").write_bytes(b"changed, and noticed when it is read")
    assert content_identity(images) == without


def test_files_that_are_not_images_are_counted_by_ending(tmp_path, capsys):
    write_images(tmp_path, ["cat/a.png"])
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "cat" / "b.raw").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    open_files(tmp_path, READER, keep_names=False, manifest=None).print_summary()
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}: 1 image in 1 class: cat (1)",
        "left out: .raw: 1, .txt: 1, hidden: 1 (such as .hidden)",
    ]


def test_folders_beside_images_may_have_names_to_hide(tmp_path):
    write_images(tmp_path, ["b.png", "Smith/a.png"])
    with pytest.raises(UserError, match=r"b\.png lies beside the folder Smith: if folders are classes"):
        open_files(tmp_path, READER, keep_names=False, manifest=None)
    assert set(_outputs(tmp_path, keep_names=True)) == {"b.png", "Smith/a.png"}
    assert open_folder(tmp_path, READER, None).count == 2


def test_only_training_images_are_augmented(tmp_path):
    write_images(tmp_path, ["Training/a/1.png", "Val/a/2.png", "spare/a/3.png", "test/a/4.png", "5.png"])
    images = open_files(tmp_path, READER, keep_names=True, manifest=None)
    assert [split.name for split in images.splits if split.is_training] == ["Training"]


def test_kept_names_that_would_collide_are_refused(tmp_path):
    write_images(tmp_path, ["cat/a.png", "cat/a.jpg"])
    assert len(_outputs(tmp_path)) == 2
    with pytest.raises(UserError, match="cat/a is the name of several images"):
        _outputs(tmp_path, keep_names=True)
