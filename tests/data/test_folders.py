"""Listing of folders: splits, classes, images without a class, and files that are left out."""

from __future__ import annotations

import pytest
from helpers.images import write_images

from ppvit_jax.data.folders import describe_left_out, list_folder
from ppvit_jax.data.listing_summary import summarize
from ppvit_jax.errors import UserError


def test_images_are_ordered_part_by_part_and_grouped_by_class(tmp_path):
    names = ["b/z.png", "b/deep/er/a.jpeg", "a/2.webp", "a-1/x.png", "a/1.tiff"]
    write_images(tmp_path, [*names, ".cache/x.png", "a/.hidden.png"])
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    listing = list_folder(tmp_path)
    assert listing.images == ["a/1.tiff", "a/2.webp", "a-1/x.png", "b/deep/er/a.jpeg", "b/z.png"]
    (whole,) = listing.splits
    assert whole.classes == {"a": range(2), "a-1": range(2, 3), "b": range(3, 5)} and not whole.unlabeled
    assert describe_left_out(listing.left_out) == ".txt: 1, hidden: 2 (such as .cache)"


LAYOUTS = {
    "usual spellings": (
        ["Training/a/1.png", "Training/b/1.png", "VAL/a/2.png", "test set/b/3.png"],
        {"Training": ("train", ["a", "b"]), "VAL": ("val", ["a"]), "test set": ("test", ["b"])},
    ),
    "a third folder": (
        ["train/a/1.png", "test/a/2.png", "spare/a/3.png"],
        {"spare": ("", ["a"]), "test": ("test", ["a"]), "train": ("train", ["a"])},
    ),
    "test images without a class": (
        ["train/a/1.png", "train/b/2.png", "test/3.png"],
        {"test": ("test", []), "train": ("train", ["a", "b"])},
    ),
    "splits without classes": (["train/1.png", "test/2.png"], {"test": ("test", []), "train": ("train", [])}),
    "one split": (["train/a/1.png", "train/b/2.png"], {"train": ("train", ["a", "b"])}),
    "classes in splits that are called like splits": (
        ["train/train/1.png", "train/bus/2.png", "test/train/3.png"],
        {"test": ("test", ["train"]), "train": ("train", ["bus", "train"])},
    ),
    "numbers": (["0/1.png", "10/1.png", "9/1.png"], {"": ("", ["0", "10", "9"])}),
    "valid and invalid": (["invalid/1.png", "valid/2.png"], {"": ("", ["invalid", "valid"])}),
    "training beside other sports": (["training/1.png", "running/2.png"], {"": ("", ["running", "training"])}),
    "folders in every class": (
        [
            "train/cat/1/a.png",
            "train/cat/2/b.png",
            "train/dog/c.png",
            "train/cat/d.png",
            "test/cat/1/e.png",
            "test/cat/2/f.png",
        ],
        {"test": ("test", ["cat"]), "train": ("train", ["cat", "dog"])},
    ),
    "folders inside classes": (["a/2019/1.png", "a/2.png", "b/2019/3.png"], {"": ("", ["a", "b"])}),
    "patients": (["Smith/1/a.png", "Jones/2/b.png"], {"": ("", ["Jones", "Smith"])}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_and_classes_are_recognized(tmp_path, layout):
    names, expected = LAYOUTS[layout]
    write_images(tmp_path, names, size=4)
    listing = list_folder(tmp_path)
    assert {split.name: (split.role, list(split.classes)) for split in listing.splits} == expected
    assert not listing.fault and not listing.stray
    listing.check_labels()


FAULTS = {
    "a class called train": (["train/1.png", "bus/2.png", "car/3.png"], "train may be a class or a split"),
    "classes beside a split": (["train/a/1.png", "train/b/1.png", "bus/2.png"], "train has class folders, but .*bus"),
    "folds": (
        ["fold1/a/1.png", "fold1/b/2.png", "fold2/a/3.png", "fold2/b/4.png"],
        "hold only folders.* a and b",
    ),
    "a folder around classes": (["images/a/1.png", "images/b/2.png"], "images is the only class folder.*a and b"),
    "a folder around splits": (["set/train/a/1.png", "set/test/a/2.png"], "set is the only class folder"),
    "classes of two depths": (
        ["ant/1.png", "group/bus/2.png", "group/car/3.png"],
        "group holds only.*, but ant",
    ),
    "classes of two depths in a split": (
        ["train/ant/1.png", "train/group/bus/2.png", "train/group/car/3.png", "test/ant/4.png"],
        "group holds only folders, such as bus and car, but ant beside it holds images",
    ),
    "a folder around classes in a split": (
        ["train/all/a/1.png", "train/all/b/2.png", "test/all/a/3.png"],
        "all is the only class folder",
    ),
}


@pytest.mark.parametrize("layout", FAULTS)
def test_folders_that_may_mean_several_things_are_refused(tmp_path, layout):
    names, message = FAULTS[layout]
    write_images(tmp_path, names, size=4)
    with pytest.raises(UserError, match=message) as caught:
        list_folder(tmp_path).check_labels()
    assert "\n" not in str(caught.value)


def test_a_class_whose_pictures_cannot_be_read_is_refused_and_a_folder_of_text_is_not(tmp_path):
    write_images(tmp_path, ["train/a/1.png", "train/b/2.png"], size=4)
    for name in ("train/c/1.heic", "train/c/2.HEIC", "train/labels/1.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0" * 40)
    message = r"train/c has files but no image that can be read \(\.heic: 2 \(Pillow cannot read them here\)\)"
    with pytest.raises(UserError, match=message):
        list_folder(tmp_path).check_labels()
    for path in (tmp_path / "train/c").iterdir():
        path.unlink()
    list_folder(tmp_path).check_labels()


def test_folders_in_class_folders_give_a_warning(tmp_path):
    write_images(tmp_path, ["animals/cat/1.png", "animals/dog/2.png", "vehicles/bus/3.png"], size=4)
    listing = list_folder(tmp_path)
    listing.check_labels()
    expected = "animals holds only folders, such as cat and dog: all its images count as the class animals"
    assert summarize(listing)[-1] == f"warning: {tmp_path}/{expected}"


def test_classes_that_differ_in_capital_letters_are_pointed_out(tmp_path):
    write_images(tmp_path, ["Cat/1.png", "cat/2.png", "dog/3.png"], size=4)
    if len(list_folder(tmp_path).splits[0].classes) == 2:
        pytest.skip("a disk that ignores capital letters")
    lines = summarize(list_folder(tmp_path))
    assert lines[-1] == "warning: Cat and cat are different classes, though only capital letters differ"


def test_many_classes_and_odd_names_keep_the_summary_short(tmp_path):
    write_images(tmp_path, [f"{number:02d}/1.png" for number in range(12)] + ["x\ny/1.png"], size=4)
    (line,) = summarize(list_folder(tmp_path))
    assert line.endswith("13 images in 13 classes: " + ", ".join(f"{n:02d} (1)" for n in range(10)) + " and 3 others")
    write_images(tmp_path / "new", ["x\ny/1.png", "z/1.png"], size=4)
    assert summarize(list_folder(tmp_path / "new"))[0].endswith(r"x\ny (1), z (1)")
