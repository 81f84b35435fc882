"""Tests of `ppvit encrypt` and `ppvit decrypt` on hostile and mistaken input."""

import re
import shutil

import pytest
from helpers.command import make_key
from helpers.command import run_ppvit as _run
from helpers.images import contents, read_images, write_images
from PIL import Image

from ppvit_jax.data import manifest as manifests

SIZES = ["--image-size=32", "--patch-size=8"]


@pytest.fixture
def key(tmp_path):
    return make_key(tmp_path, 1)


def _bomb(folder):
    Image.new("1", (20_000, 20_000)).save(folder / "a" / "bomb.png")


def _truncated(folder):
    path = folder / "a" / "1.png"
    path.write_bytes(path.read_bytes()[:200])


def _file_loop(folder):
    (folder / "a" / "loop.png").symlink_to(folder / "a" / "loop.png")


HOSTILE = {
    "a decompression bomb": (_bomb, [], r"bomb.png.*(pixels|400000000)"),
    "a truncated PNG": (_truncated, [], "cannot read .*1.png"),
    "a non-image named .png": (lambda f: (f / "a" / "1.png").write_text("MZ"), [], "1.png is not an image"),
    "an empty PNG": (lambda f: (f / "a" / "1.png").write_bytes(b""), [], "1.png is not an image"),
    "a link to itself": (_file_loop, [], "loop.png.*Too many levels of symbolic links"),
    "a link to nothing": (lambda f: (f / "a" / "no.png").symlink_to("nothing.png"), [], "no.png.*No such file"),
    "no images": (lambda f: shutil.rmtree(f / "a"), [], "has no images"),
    "no folder": (lambda f: shutil.rmtree(f), [], "there is no .*/in"),
    "output in input": (lambda f: None, ["--output={tmp}/in/out"], "lies in the input"),
    "output is input": (lambda f: None, ["--output={tmp}/in"], "lies in the input"),
    "names in output": (lambda f: None, ["--names={tmp}/out/names.csv"], "goes to the cloud"),
    "names nowhere": (lambda f: None, ["--names={tmp}/no/names.csv"], "there is no folder"),
    "a key for all to read": (lambda f: (f.parent / "1.key").chmod(0o644), [], "run chmod 600"),
    "no key": (lambda f: (f.parent / "1.key").unlink(), [], "cannot read the key file"),
    "an output that is a file": (lambda f: (f.parent / "out").write_text("x"), [], "cannot write to .*out: "),
    "an output of other files": (lambda f: write_images(f.parent / "out", ["mine.png"]), [], "holds other files"),
    "names in another file": (lambda f: None, ["--names={tmp}/1.key"], "exists with other content"),
    "negative copies": (lambda f: None, ["--augmentations=-1"], "--augmentations is -1: give at least 0"),
    "no pixels": (lambda f: None, ["--max-pixels=0"], "--max-pixels is 0"),
    "options of tfds": (lambda f: None, ["--splits=train"], "need --tfds"),
    "an unknown argument": (lambda f: None, ["--keys=3"], "unknown arguments --keys=3"),
}


def _check_one_line(errors, folder):
    """Checks that the last line alone is an error; the work may begin with a note and a summary of the images."""
    *before, last = errors.splitlines()
    assert last.startswith("error: ")
    assert all(line.startswith(("note: ", f"{folder}: ")) for line in before), errors


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_input_gives_one_line_and_nothing_outside_the_output(tmp_path, key, capsys, kind):
    make, extra, message = HOSTILE[kind]
    write_images(tmp_path / "in", ["a/1.png"])
    make(tmp_path / "in")
    before = {name: content for name, content in contents(tmp_path).items() if not name.startswith("out/")}
    options = ["--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES]
    assert _run("encrypt", *options, *(text.format(tmp=tmp_path) for text in extra)) == 1
    errors = capsys.readouterr().err
    assert re.search(message, errors), errors
    _check_one_line(errors, tmp_path / "in")
    assert {name: content for name, content in contents(tmp_path).items() if not name.startswith("out/")} == before
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_links_in_a_circle_are_followed_once(tmp_path, key):
    write_images(tmp_path / "in", ["a/1.png", "a/b/2.png"])
    (tmp_path / "in" / "a" / "b" / "up").symlink_to(tmp_path / "in" / "a", target_is_directory=True)
    (tmp_path / "in" / "a" / "self").symlink_to(tmp_path / "in" / "a" / "self", target_is_directory=True)
    assert _run("encrypt", "--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES) == 0
    assert len(read_images(tmp_path / "out")) == 2


def _edit_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("bs+ps", "ps"))


def _forge_manifest(folder):
    """Forges a manifest whose SHA-256 agrees, without the key."""
    manifest = manifests.read(folder)
    assert manifest is not None
    manifests.write(folder, manifest.header, manifest.files.items(), lambda digest: "00" * 32)


def _swap(folder):
    one, other = sorted(folder.rglob("*.png"))[:2]
    shutil.copy(one, other)


DAMAGES = {
    "another key": (lambda f: None, ["--key={tmp}/2.key"], r"fingerprint \w+, but --key has fingerprint \w+"),
    "an edited manifest": (_edit_manifest, [], "its SHA-256 does not match"),
    "a forged manifest": (_forge_manifest, [], "not written with this key, or has changed"),
    "an image in another's place": (_swap, [], "is not the file that the manifest describes"),
    "an image less": (lambda f: next(f.rglob("*.png")).unlink(), [], "is missing, but in the manifest"),
    "an image more": (lambda f: write_images(f, ["a/new.png"]), [], "is not in the manifest"),
    "another encryption": (lambda f: None, ["--encryption=bs"], "the encryption bs\\+ps, not bs: leave --encryption"),
    "another size": (lambda f: None, ["--image-size=64"], "the image_size 32, not 64: leave --image-size"),
    "an unfinished folder": (lambda f: (f / manifests.JOURNAL).write_text(""), [], "is not complete"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), [], "has no manifest.json.* such as --encryption=bs"),
    "no manifest and another size": (
        lambda f: (f / "manifest.json").unlink(),
        ["--encryption=bs+ps"],
        "note: .*assuming bs\\+ps, images of 224x224 and blocks of 16x16(.|\n)*32 x 32 pixels, but encrypted",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_not_decrypted(tmp_path, key, capsys, damage):
    make_key(tmp_path, 2)
    write_images(tmp_path / "in", ["a/1.png", "a/2.png"])
    assert _run("encrypt", "--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES) == 0
    make, extra, message = DAMAGES[damage]
    make(tmp_path / "out")
    capsys.readouterr()
    options = ["--key", key, "--input", tmp_path / "out", "--output", tmp_path / "back"]
    assert _run("decrypt", *options, *(text.format(tmp=tmp_path) for text in extra)) == 1
    errors = capsys.readouterr().err
    assert re.search(message, errors), errors
    _check_one_line(errors, tmp_path / "out")
    assert not (tmp_path / "back" / "manifest.json").exists()


def test_encrypting_twice_and_decrypting_twice_are_refused(tmp_path, key, capsys):
    write_images(tmp_path / "in", ["a/1.png"])
    options = ["--key", key, *SIZES]
    assert _run("encrypt", *options, "--input", tmp_path / "in", "--output", tmp_path / "out") == 0
    assert _run("encrypt", *options, "--input", tmp_path / "out", "--output", tmp_path / "twice") == 1
    assert "are already encrypted" in capsys.readouterr().err
    assert _run("decrypt", "--key", key, "--input", tmp_path / "out" / "a", "--output", tmp_path / "back") == 0
    assert _run("decrypt", *options, "--input", tmp_path / "back", "--output", tmp_path / "twice") == 1
    assert "are not encrypted" in capsys.readouterr().err
    assert not (tmp_path / "twice").exists()
