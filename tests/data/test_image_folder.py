"""Image folders: listing, splits, sources, and folders that are rejected."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppvit_jax.config import default_config
from ppvit_jax.data import image_folder, load
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.folders import LabeledFiles, list_folder
from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.source import ArraySource, StreamSource
from ppvit_jax.data.train_and_test import divide, list_for_training
from ppvit_jax.errors import UserError


def write(path: Path, value: int = 0, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def names(files: LabeledFiles, root: Path) -> list[tuple[str, int]]:
    return [(path.relative_to(root).as_posix(), label) for path, label in files]


def make_classes(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        for index in range(count):
            write(root / name / f"{index:03d}.png", index)
    return root


def split(root: Path, test_fraction: float = 0.25, seed: int = 0):
    return divide(list_for_training(root, "train", "val", None), "train", "val", test_fraction, seed, None)


def list_class_folders(root: Path) -> tuple[LabeledFiles, tuple[str, ...]]:
    listing = list_folder(root)
    classes = listing.splits[0].classes
    files = [(root / listing.images[i], label) for label, name in enumerate(classes) for i in classes[name]]
    return files, tuple(classes)


def test_lists_nested_files_of_any_known_kind_in_order(tmp_path):
    for name in ("b/z.PNG", "b/deep/er/a.jpeg", "a/2.webp", "a/1.tiff", "a/3.bmp", "a/4.gif", "c/x.JpG"):
        write(tmp_path / name)
    for hidden in ("a/.secret.png", ".cache/x.png", "b/.thumbnails/x.png"):
        write(tmp_path / hidden)
    (tmp_path / "a/notes.txt").write_text("not an image")
    (tmp_path / "manifest.json").write_text("{}")
    files, class_names = list_class_folders(tmp_path)
    assert class_names == ("a", "b", "c")
    assert names(files, tmp_path) == [
        *(("a/1.tiff", 0), ("a/2.webp", 0), ("a/3.bmp", 0), ("a/4.gif", 0)),
        *(("b/deep/er/a.jpeg", 1), ("b/z.PNG", 1), ("c/x.JpG", 2)),
    ]


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links here")
def test_symbolic_links_are_followed_but_not_round_in_circles(tmp_path):
    outside = write(tmp_path / "elsewhere/x.png").parent
    write(tmp_path / "root/a/y.png")
    (tmp_path / "root/a/linked").symlink_to(outside, target_is_directory=True)
    (tmp_path / "root/a/loop").symlink_to(tmp_path / "root/a", target_is_directory=True)
    files, _ = list_class_folders(tmp_path / "root")
    assert names(files, tmp_path / "root") == [("a/linked/x.png", 0), ("a/y.png", 0)]


def test_sub_folders_are_the_splits_and_test_labels_follow_train(tmp_path):
    make_classes(tmp_path / "train", ant=2, bee=1, cat=1)
    make_classes(tmp_path / "val", cat=2, bee=1)
    train, test, class_names = split(tmp_path)
    assert class_names == ("ant", "bee", "cat")
    assert [label for _, label in train] == [0, 0, 1, 2]
    assert names(test, tmp_path / "val") == [("bee/000.png", 1), ("cat/000.png", 2), ("cat/001.png", 2)]


@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.5, 0.99])
def test_a_folder_without_splits_is_split_within_each_class(tmp_path, fraction):
    counts = {"a": 20, "b": 7, "c": 2}
    make_classes(tmp_path, **counts)
    train, test, class_names = split(tmp_path, fraction)
    assert sorted(train + test) == sorted(list_class_folders(tmp_path)[0])
    for label, name in enumerate(class_names):
        held_out = sum(found == label for _, found in test)
        assert 1 <= held_out < counts[name]
        assert abs(held_out - fraction * counts[name]) <= 1


def test_the_split_depends_on_the_seed_alone(tmp_path):
    make_classes(tmp_path / "one", a=30, b=30)
    make_classes(tmp_path / "two", b=30, a=30)
    first, second = (names(split(tmp_path / name)[1], tmp_path / name) for name in ("one", "two"))
    assert first == second
    assert first != names(split(tmp_path / "one", seed=1)[1], tmp_path / "one")


def test_fetch_decodes_resizes_and_keeps_the_order(tmp_path):
    make_classes(tmp_path, a=3, b=2)
    files, _ = list_class_folders(tmp_path)
    reader = ImageReader(8, "centre_crop", 24)
    stream = image_folder.make_source(files, reader, in_memory=False)
    memory = image_folder.make_source(files, reader, in_memory=True)
    assert isinstance(stream, StreamSource) and isinstance(memory, ArraySource)
    for source in (stream, memory):
        assert len(source) == 5 and source.image_shape == (8, 8, 3)
        assert source.labels.dtype == np.int32 and list(source.labels) == [0, 0, 0, 1, 1]
        for index, value in enumerate((0, 1, 2, 0, 1)):
            image = source.fetch(index)
            assert image.dtype == np.uint8 and image.shape == (8, 8, 3) and (image == value).all()


@pytest.mark.parametrize("in_memory", [False, True])
def test_unreadable_and_too_large_files_are_named(tmp_path, in_memory):
    bad = tmp_path / "a/bad.png"
    write(bad)
    bad.write_bytes(bad.read_bytes()[:40])
    big = write(tmp_path / "b/big.png", size=(10, 10))

    def fetch(path: Path) -> None:
        image_folder.make_source([(path, 0)], ImageReader(4, "squash", 99), in_memory=in_memory).fetch(0)

    with pytest.raises(UserError, match=r"a/bad\.png"):
        fetch(bad)
    with pytest.raises(UserError, match=r"b/big\.png has 10 x 10 pixels"):
        fetch(big)


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_file_that_the_manifest_does_not_describe_is_named(tmp_path, in_memory):
    paths = [write(tmp_path / f"a/{number}.png", number) for number in range(3)]
    header = manifests.Header("none", None, 4, 4, "")
    files = [(f"a/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths[:2]]
    manifests.write(tmp_path, header, files, None)
    manifest = manifests.read(tmp_path)

    def fetch(path: Path) -> np.ndarray:
        reader = ImageReader(4, "squash", 99)
        return image_folder.make_source([(path, 0)], reader, in_memory=in_memory, manifest=manifest).fetch(0)

    assert (fetch(paths[1]) == 1).all()
    write(paths[0], 200)
    for path in (paths[0], paths[2]):
        with pytest.raises(UserError, match=rf"a/{path.name} is not the file that the manifest describes"):
            fetch(path)
    paths[1].unlink()
    with pytest.raises(UserError, match=r"cannot read .*a/1.png \(No such file or directory\): replace or remove it"):
        fetch(paths[1])


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the folder .*nowhere"):
        split(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no class folders"):
        split(tmp_path)
    file = write(tmp_path / "x.png")
    with pytest.raises(UserError, match="has no class folders"):
        split(tmp_path)
    with pytest.raises(UserError, match="cannot read the folder"):
        split(file)


def test_a_class_without_images_is_named(tmp_path):
    make_classes(tmp_path, a=3)
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow/readme.txt").write_text("")
    with pytest.raises(UserError, match="hollow has no image"):
        split(tmp_path)


def test_only_one_of_the_splits(tmp_path):
    make_classes(tmp_path / "train", a=1)
    make_classes(tmp_path / "test", a=1)
    with pytest.raises(UserError, match="folder 'train' but none named 'val'"):
        split(tmp_path)


def test_a_test_class_unknown_to_training_is_named(tmp_path):
    make_classes(tmp_path / "train", a=1, b=1)
    make_classes(tmp_path / "val", a=1, wolf=1)
    with pytest.raises(UserError, match=r"class 'wolf', which .*train lacks"):
        split(tmp_path)


def test_a_class_of_one_image_cannot_be_split(tmp_path):
    make_classes(tmp_path, a=3, single=1)
    with pytest.raises(UserError, match="'single' has 1 image"):
        split(tmp_path)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_wrong_fraction(tmp_path, fraction):
    with pytest.raises(UserError, match="test_fraction"):
        split(make_classes(tmp_path, a=3), fraction)


def test_the_digest_of_the_training_images_does_not_depend_on_the_test_images(tmp_path):
    def digests():
        data = default_config().data
        data.dir, data.source = str(tmp_path), "image_folder"
        dataset = load(data, 4)
        return dataset.digest, dataset.train_digest

    for name in ("train", "test"):
        make_classes(tmp_path / name, a=2, b=2)
    first = digests()
    write(tmp_path / "test/a/000.png", 200)
    second = digests()
    assert first[0] != second[0] and first[1] == second[1] != second[0]
    write(tmp_path / "train/b/000.png", 200)
    assert digests()[0] != second[0] and digests()[1] != second[1]
