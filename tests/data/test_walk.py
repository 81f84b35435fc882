"""Walk through a folder: links, folders that cannot be read, and files of systems."""

from __future__ import annotations

import collections
import os
import shutil

import pytest
from helpers.images import write_images

from ppvit_jax.data import walk as walking
from ppvit_jax.data.folders import list_folder
from ppvit_jax.data.walk import FORBIDDEN, HIDDEN, LINK, LOOP, OTHER, SPECIAL, SYSTEM, walk
from ppvit_jax.errors import UserError


def reasons(files: walking.Files) -> dict[tuple[str, str], int]:
    counts = collections.Counter()
    for part in files.left_out:
        counts[part.reason, part.ending] += part.count
    return dict(counts)


def test_files_of_operating_systems_are_left_out(tmp_path):
    system = ["__MACOSX/cat/1.png", "cat/Thumbs.db", "cat/desktop.ini", "@eaDir/cat/2.png"]
    hidden = [".DS_Store", "cat/._1.png", ".ipynb_checkpoints/3.png"]
    for name in (*system, *hidden):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    write_images(tmp_path, ["cat/1.png"], size=4)
    files = walk(tmp_path)
    assert files.images == ["cat/1.png"] and files.folders == {"cat"}
    assert reasons(files) == {(SYSTEM, ""): 4, (HIDDEN, ""): 3}


def test_images_are_recognized_by_content_where_the_ending_is_not_usual(tmp_path):
    write_images(tmp_path, ["a/1.png", "a/2.jpg"], size=4)
    shutil.copy(tmp_path / "a/1.png", tmp_path / "a" / "noending")
    shutil.copy(tmp_path / "a/2.jpg", tmp_path / "a" / "3.picture")
    shutil.copy(tmp_path / "a/2.jpg", tmp_path / "a" / "4.JFIF")
    shutil.copy(tmp_path / "a/2.jpg", tmp_path / "a" / "text.txt")
    (tmp_path / "a/5.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n")
    (tmp_path / "a/6.bin").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "README").write_text("#define im_width 4\n#define im_height 4\nstatic char im_bits[] = {\n0x00};")
    files = walk(tmp_path)
    assert files.images == ["a/1.png", "a/2.jpg", "a/3.picture", "a/4.JFIF", "a/noending"]
    assert reasons(files) == {(OTHER, ""): 1, (OTHER, ".bin"): 1, (OTHER, ".eps"): 1, (OTHER, ".txt"): 1}


def test_links_are_followed_and_two_links_to_one_folder_both_count(tmp_path):
    write_images(tmp_path, ["elsewhere/1.png"], size=4)
    for split in ("train", "test"):
        (tmp_path / "root" / split).mkdir(parents=True)
        (tmp_path / "root" / split / "cat").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "root" / "train" / "up").symlink_to(tmp_path / "root", target_is_directory=True)
    (tmp_path / "root" / "train" / "one.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    files = walk(tmp_path / "root")
    assert files.images == ["test/cat/1.png", "train/cat/1.png", "train/one.png"]
    assert reasons(files) == {(LOOP, ""): 1}


@pytest.mark.parametrize("name", ["a/lost.png", "class"])
def test_a_link_to_nothing_stops_or_is_left_out(tmp_path, name):
    write_images(tmp_path, ["a/1.png"], size=4)
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=f"cannot read .*{name} .No such file or directory.: replace or remove it"):
        walk(tmp_path)
    files = walk(tmp_path, skip_unreadable=True)
    assert files.images == ["a/1.png"] and reasons(files) == {(LINK, ""): 1}


def test_a_link_to_nothing_that_was_no_image_does_not_matter(tmp_path):
    write_images(tmp_path, ["a/1.png"], size=4)
    (tmp_path / "notes.txt").symlink_to(tmp_path / "nowhere")
    assert reasons(walk(tmp_path)) == {(LINK, ""): 1}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_opened(tmp_path):
    write_images(tmp_path, ["a/1.png"], size=4)
    os.mkfifo(tmp_path / "a" / "pipe.png")
    files = walk(tmp_path)
    assert files.images == ["a/1.png"] and reasons(files) == {(SPECIAL, ""): 1}


def test_a_folder_without_permission_stops_or_is_left_out(tmp_path, monkeypatch):
    """The disk answers as to a user without permission, which the tests' user may not be."""
    write_images(tmp_path, ["a/1.png", "b/2.png"], size=4)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(walking.os, "scandir", refuse)
    with pytest.raises(UserError, match=r"cannot read .*/b \(Permission denied\): make it readable"):
        walk(tmp_path)
    files = walk(tmp_path, skip_unreadable=True)
    assert files.images == ["a/1.png"] and files.folders == {"a", "b"} and reasons(files) == {(FORBIDDEN, ""): 1}
    with pytest.raises(UserError, match=r"folder .*/b has files but no image that can be read \(without permission"):
        list_folder(tmp_path, skip_unreadable=True).check_labels()
