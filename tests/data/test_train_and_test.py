"""Training and test images of a folder: spellings of splits, copies of images, and folders that are rejected."""

from __future__ import annotations

import collections
import hashlib
from pathlib import Path

import pytest
from helpers.images import write_images

from ppvit_jax.data import image_folder
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.copies import group_name
from ppvit_jax.data.settings import DataSettings
from ppvit_jax.data.train_and_test import divide, list_for_training
from ppvit_jax.errors import UserError


def split(root: Path, train: str = "train", test: str = "test", manifest: manifests.Manifest | None = None):
    return divide(list_for_training(root, train, test, manifest), train, test, 0.25, 0, manifest)


def names(files, root):
    return [path.relative_to(root).as_posix() for path, _ in files]


@pytest.mark.parametrize(
    ("train_name", "test_name"), [("Train", "TEST"), ("training", "Testing"), ("train_set", "test")]
)
def test_usual_spellings_of_splits(tmp_path, train_name, test_name):
    write_images(tmp_path, [f"{train_name}/a/1.png", f"{train_name}/b/2.png", f"{test_name}/b/3.png"], size=4)
    train, test, class_names = split(tmp_path)
    assert class_names == ("a", "b") and [label for _, label in train] == [0, 1]
    assert names(test, tmp_path) == [f"{test_name}/b/3.png"] and test[0][1] == 1


def test_a_validation_split_is_tested_on_only_if_there_is_no_test_split(tmp_path, capsys):
    write_images(tmp_path, ["train/a/1.png", "train/b/2.png", "valid/a/3.png", "valid/b/4.png"], size=4)
    assert names(split(tmp_path)[1], tmp_path) == ["valid/a/3.png", "valid/b/4.png"]
    assert "training images: train; test images: valid\n" in capsys.readouterr().err
    write_images(tmp_path, ["test/a/5.png"], size=4)
    assert names(split(tmp_path)[1], tmp_path) == ["test/a/5.png"]
    errors = capsys.readouterr().err
    assert "note: not used: valid (2 images)\n" in errors
    assert "warning: no test image shows b\n" in errors
    # A split that is named decides.
    assert names(split(tmp_path, test="val")[1], tmp_path) == ["valid/a/3.png", "valid/b/4.png"]


def test_splits_may_have_any_names_that_the_user_gives(tmp_path):
    write_images(tmp_path, [f"fold{n}/{label}/{n}.png" for n in range(3) for label in "ab"], size=4)
    with pytest.raises(UserError, match="hold only folders"):
        split(tmp_path)
    train, test, class_names = split(tmp_path, "fold0", "fold2")
    assert class_names == ("a", "b") and names(train + test, tmp_path)[::2] == ["fold0/a/0.png", "fold2/a/2.png"]
    with pytest.raises(UserError, match=r"has no folder 'fold9': correct data\.test_split"):
        split(tmp_path, "fold0", "fold9")


REFUSED = {
    "one split": (["train/a/1.png", "train/b/2.png"], "has a folder 'train' but none named 'test'"),
    "two spellings": (["train/a/1.png", "Test/a/2.png", "testing/a/3.png"], "'Test' and 'testing': name one"),
    "one class": (["a/1.png", "a/2.png", "a/3.png"], "has a single class, a: give images of two"),
    "one class in splits": (["train/a/1.png", "test/a/2.png"], "has a single class, a: give images of two"),
    "unlabeled test images": (["train/a/1.png", "train/b/2.png", "test/3.png"], "test has no class folders"),
    "a class that may be a split": (["train/1.png", "bus/2.png", "car/3.png"], "'train' but none named 'test'"),
}


@pytest.mark.parametrize("layout", REFUSED)
def test_folders_that_are_refused(tmp_path, capsys, layout):
    files, message = REFUSED[layout]
    write_images(tmp_path, files, size=4)
    with pytest.raises(UserError, match=message):
        split(tmp_path)
    assert not capsys.readouterr().err


def test_a_split_without_images_is_refused_with_what_it_has(tmp_path):
    write_images(tmp_path, ["train/a/1.png", "train/b/2.png"], size=4)
    (tmp_path / "test" / "a").mkdir(parents=True)
    (tmp_path / "test" / "a" / "3.heic").write_bytes(b"\0" * 40)
    with pytest.raises(UserError, match=r"test has no images \(\.heic: 1 \(Pillow cannot read them here\)\)"):
        split(tmp_path)


def test_an_image_beside_class_folders_is_left_out_with_a_warning(tmp_path, capsys):
    write_images(tmp_path, ["a/1.png", "a/2.png", "b/3.png", "b/4.png", "plan.png"], size=4)
    train, test, _ = split(tmp_path)
    assert len(train + test) == 4
    assert "warning: images beside class folders belong to no class: 1, such as plan.png" in capsys.readouterr().err


@pytest.mark.parametrize("recorded", [True, False])
def test_copies_of_an_image_stay_on_one_side(tmp_path, capsys, recorded):
    files = [f"{'ab'[n % 2]}/{n:08d}_{copy}.png" for n in range(12) for copy in range(3)]
    write_images(tmp_path, files, size=4)
    manifest = None
    if recorded:
        hashes = [(name, hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()) for name in files]
        manifests.write(tmp_path, manifests.Header("none", None, 4, 4, "", 3), hashes, None)
        manifest = manifests.read(tmp_path)
    train, test, _ = split(tmp_path, manifest=manifest)
    sides = [{group_name(name, 3) for name in names(part, tmp_path)} for part in (train, test)]
    assert not sides[0] & sides[1] and len(sides[0]) == 8 and len(sides[1]) == 4
    assert set(collections.Counter(group_name(name, 3) for name in names(test, tmp_path)).values()) == {3}
    assert ("count as copies of one" in capsys.readouterr().err) != recorded


def settings(folder: Path, **changes: object) -> DataSettings:
    fields = {"train_split": "train", "test_split": "test", "test_fraction": 0.5, "resize": "squash"} | changes
    return DataSettings(name="", dir=str(folder), max_pixels=1000, in_memory=False, image_size=4, seed=0, **fields)  # pyright: ignore


def test_the_digest_of_a_data_set_is_that_of_its_content(tmp_path, capsys):
    write_images(tmp_path, [f"{split}/{label}/{split}.png" for split in ("train", "test") for label in "ab"], size=4)

    def digest():
        return image_folder.load(settings(tmp_path, train_examples=0, test_examples=0)).digest

    first = digest()
    assert len(first) == 64 and digest() == first
    content = bytearray((tmp_path / "train/a/train.png").read_bytes())
    content[-1] ^= 1
    (tmp_path / "train/a/train.png").write_bytes(content)
    second = digest()
    (tmp_path / "test/a/test.png").rename(tmp_path / "test/a/other.png")
    assert len({first, second, digest()}) == 3
    assert "are training images too" not in capsys.readouterr().err
    (tmp_path / "test/a/other.png").write_bytes(content)
    digest()
    assert "warning: 1 test images are training images too, such as " in capsys.readouterr().err
