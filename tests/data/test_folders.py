"""Listing of folders: splits, classes, images without a class, and files that are left out."""

from __future__ import annotations

import os

import pytest
from helpers.images import write_images

from ppvit_jax.data.folders import describe_left_out, list_folder
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
