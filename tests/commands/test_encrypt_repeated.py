"""Tests of `ppvit encrypt` and `decrypt` that are repeated: other images, former versions, copies, lost classes."""

import dataclasses
import json

import numpy as np
import pytest
from helpers.command import make_key
from helpers.command import run_ppvit as _run
from helpers.images import contents, read_images, write_images
from PIL import Image

from ppvit_jax import keys
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.identity import former_identity
from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.listing import open_files

SIZES = ["--image-size=32", "--patch-size=8"]


@pytest.fixture
def key(tmp_path):
    return make_key(tmp_path, 1)


def _options(tmp_path, key, source="in", output="out"):
    return ["encrypt", "--key", key, "--input", tmp_path / source, "--output", tmp_path / output, *SIZES]


def _write_bmp(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (value, 0, 0)).save(path)


def test_an_image_replaced_by_another_of_its_size_is_noticed(tmp_path, key, capsys):
    for number, name in enumerate(["train/ant/1.bmp", "train/bus/2.bmp", "test/ant/3.bmp"]):
        _write_bmp(tmp_path / "in" / name, number)
    options = _options(tmp_path, key)
    assert _run(*options) == 0
    before = contents(tmp_path / "out")
    _write_bmp(tmp_path / "in" / "train/ant/1.bmp", 9)
    capsys.readouterr()
    assert _run(*options) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert "out was made from other images than those in" in errors and "choose a new folder" in errors
    assert _run(*options, "--resize=squash") == 1
    assert "the output of another command: choose a new folder" in capsys.readouterr().err
    _write_bmp(tmp_path / "in" / "train/ant/1.bmp", 0)
    assert _run(*options) == 0
    assert "already complete" in capsys.readouterr().out
    assert contents(tmp_path / "out") == before


def test_an_interrupted_run_is_not_continued_with_other_images(tmp_path, key, capsys, monkeypatch):
    from ppvit_jax.offline.journal import Journal

    for number in range(3):
        _write_bmp(tmp_path / "in" / f"{'ab'[number % 2]}/{number}.bmp", number)
    options = _options(tmp_path, key)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        assert _run(*options) == 130
    _write_bmp(tmp_path / "in" / "a/0.bmp", 9)
    assert _run(*options) == 1
    assert "was made from other images" in capsys.readouterr().err
    _write_bmp(tmp_path / "in" / "a/0.bmp", 0)
    assert _run(*options) == 0


def _make_former(tmp_path, key, files=None):
    """Gives the output the manifest that a former version would have written."""
    folder = tmp_path / "out"
    manifest = manifests.read(folder)
    assert manifest is not None
    images = open_files(tmp_path / "in", ImageReader(32, "centre_crop", 10_000), keep_names=False, manifest=None)
    options = {"resize": "centre_crop", "augmentations": 2, "augmentation": "flip+crop", "seed": 0, "keep_names": False}
    secret = keys.load(key)
    origin = secret.authenticate(json.dumps([former_identity(images), options]).encode())
    header = dataclasses.replace(manifest.header, origin=origin, copies=1)
    items = [(files or {}).get(name, name) for name in manifest.files]
    manifests.write(folder, header, zip(items, manifest.files.values(), strict=True), secret.authenticate)
    return header


@pytest.mark.slow
def test_a_folder_of_a_former_version_is_recognized_with_a_note(tmp_path, key, capsys):
    write_images(tmp_path / "in", ["train/a/1.png", "train/b/2.png", "test/a/3.png"], size=32)
    options = [*_options(tmp_path, key), "--augmentations=2"]
    assert _run(*options) == 0
    _make_former(tmp_path, key)
    capsys.readouterr()
    assert _run(*options) == 0
    printed = capsys.readouterr()
    assert "already complete" in printed.out
    assert "note: " in printed.err and "is from a former version of ppvit" in printed.err
    # Its copies are recognized by their names.
    assert _run("decrypt", "--key", key, "--input", tmp_path / "out", "--output", tmp_path / "back") == 0
    back = manifests.read(tmp_path / "back")
    assert back is not None and back.header.copies == 2
    # A folder whose classes were lost is not taken for complete.
    _make_former(tmp_path, key, {"train/b/00000002_0.png": "train/00000002_0.png"})
    assert _run(*options) == 1
    assert "already holds other files, or the output of another command" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_a_former_version_began_is_continued(tmp_path, key, capsys):
    write_images(tmp_path / "in", ["train/a/1.png", "train/b/2.png", "test/a/3.png"], size=32)
    options = [*_options(tmp_path, key), "--augmentations=2"]
    assert _run(*options) == 0
    header = _make_former(tmp_path, key)
    whole = contents(tmp_path / "out")
    manifest = manifests.read(tmp_path / "out")
    assert manifest is not None
    (tmp_path / "out" / "manifest.json").unlink()
    first = {name: sha for name, sha in manifest.files.items() if "test" in name}
    lines = [json.dumps(header.fields()), json.dumps(first)]
    (tmp_path / "out" / manifests.JOURNAL).write_text("\n".join(lines) + "\n")
    capsys.readouterr()
    assert _run(*options) == 0
    printed = capsys.readouterr()
    assert "is from a former version of ppvit" in printed.err and "resumed after" in printed.out
    assert contents(tmp_path / "out") == whole


def test_the_number_of_copies_is_recorded_and_kept(tmp_path, key, capsys):
    write_images(tmp_path / "in", ["a/1.png", "a/2.png", "b/3.png"], size=32)
    assert _run(*_options(tmp_path, key), "--augmentations=2", "--keep-names") == 0
    assert _run("decrypt", "--key", key, "--input", tmp_path / "out", "--output", tmp_path / "back") == 0
    assert _run(*_options(tmp_path, key, "back", "again")) == 0
    names = {}
    for folder in ("out", "back", "again"):
        manifest = manifests.read(tmp_path / folder)
        assert manifest is not None and manifest.header.copies == 2
        names[folder] = list(manifest.files)
    assert names["out"] == names["back"] == [f"{name}_{copy}.png" for name in ("a/1", "a/2", "b/3") for copy in (0, 1)]
    assert names["again"] == [f"{'aab'[n]}/{n:08d}_{copy}.png" for n in range(3) for copy in (0, 1)]
    for one, other in zip(names["out"], names["again"], strict=True):
        np.testing.assert_array_equal(read_images(tmp_path / "out")[one], read_images(tmp_path / "again")[other])
    capsys.readouterr()
    assert _run(*_options(tmp_path, key, "back", "more"), "--augmentations=3") == 1
    assert "are augmented copies already: leave --augmentations out" in capsys.readouterr().err


def test_without_copies_the_manifest_has_no_such_field(tmp_path, key):
    write_images(tmp_path / "in", ["a/1.png", "b/2.png"], size=32)
    assert _run(*_options(tmp_path, key), "--augmentations=1") == 0
    assert "copies" not in json.loads((tmp_path / "out" / "manifest.json").read_text())


def test_a_class_of_which_nothing_can_be_read_is_pointed_out(tmp_path, key, capsys):
    write_images(tmp_path / "in", ["train/a/1.png", "train/b/2.png", "test/a/3.png"], size=32)
    (tmp_path / "in" / "train/b/2.png").write_bytes(b"broken")
    (tmp_path / "in" / "test/a/lost.png").symlink_to(tmp_path / "nowhere.png")
    options = _options(tmp_path, key)
    assert _run(*options) == 1
    assert "lost.png (No such file or directory): replace or remove it" in capsys.readouterr().err
    assert _run(*options, "--skip-unreadable") == 0
    printed = capsys.readouterr()
    assert "out: 2 images, 1 left out in" in printed.out
    assert "links to nothing: 1 (such as test/a/lost.png)" in printed.err
    assert "warning: no image of train/b could be read, so the output lacks it\n" in printed.err


def test_images_of_which_none_can_be_read_are_refused(tmp_path, key, capsys):
    write_images(tmp_path / "in", ["a/1.png", "b/2.png"], size=32)
    for path in (tmp_path / "in").rglob("*.png"):
        path.write_bytes(b"broken")
    assert _run(*_options(tmp_path, key), "--skip-unreadable") == 1
    assert "error: none of the 2 images" in capsys.readouterr().err
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_the_manifest_of_another_program_does_not_matter(tmp_path, key, capsys):
    write_images(tmp_path / "in", ["a/1.png", "b/2.png"], size=32)
    (tmp_path / "in" / "manifest.json").write_text('[{"prefix": "s3://bucket/"}, "a/1.png"]')
    assert _run(*_options(tmp_path, key)) == 0
    assert "left out: .json: 1" in capsys.readouterr().err
    assert len(read_images(tmp_path / "out")) == 2


def test_decrypt_does_not_guess_the_encryption(tmp_path, key, capsys):
    write_images(tmp_path / "plain", ["a/1.png"], size=32)
    options = ["decrypt", "--key", key, "--input", tmp_path / "plain", "--output", tmp_path / "out", *SIZES]
    assert _run(*options) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1 and "so its images may be plain" in errors
    assert not (tmp_path / "out").exists()
    assert _run(*options, "--encryption=bs") == 0
    assert "assuming bs, images of 32x32 and blocks of 8x8 pixels" in capsys.readouterr().err
