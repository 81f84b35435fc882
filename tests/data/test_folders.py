"""Listing of image files below folders."""

from __future__ import annotations

import pytest
from helpers.images import write_images

from ppvit_jax.data.folders import list_class_folders, list_images, list_subfolders
from ppvit_jax.errors import UserError


def test_both_listings_see_the_same_files_in_the_same_order(tmp_path):
    names = ["b/z.png", "b/deep/er/a.jpeg", "a/2.webp", "a-1/x.png", "a/1.tiff"]
    write_images(tmp_path, [*names, ".cache/x.png", "a/.hidden.png"])
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    paths, others = list_images(tmp_path)
    assert (paths, others) == (["a/1.tiff", "a/2.webp", "a-1/x.png", "b/deep/er/a.jpeg", "b/z.png"], 1)
    files, class_names = list_class_folders(tmp_path)
    assert class_names == ("a", "a-1", "b") and list_subfolders(tmp_path) == set(class_names)
    assert [path.relative_to(tmp_path).as_posix() for path, _ in files] == paths
    assert [class_names[label] for _, label in files] == [path.split("/")[0] for path in paths]


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(UserError, match=r"has no images \(\.bmp, .*\): give a folder of image files"):
        list_images(tmp_path)
    with pytest.raises(UserError, match=r"cannot read the folder .*nowhere"):
        list_images(tmp_path / "nowhere")
