"""Tests of `ppvit encrypt` and `ppvit decrypt` on good input."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import make_key
from helpers.command import run_ppvit as _run
from helpers.images import contents, read_images, write_images
from helpers.toy import COUNTS, build
from PIL import Image

from ppvit_jax import encryption, keys
from ppvit_jax.data import manifest as manifests

SIZES = ["--image-size=32", "--patch-size=8"]
FILES = ["train/cat/Smith.png", "train/cat/b.jpg", "train/dog/c.png", "test/cat/d.png", "test/dog/e.webp"]
NUMBERED = [
    "test/cat/00000000.png",
    "test/dog/00000001.png",
    "train/cat/00000002.png",
    "train/cat/00000003.png",
    "train/dog/00000004.png",
]


@pytest.fixture
def key(tmp_path):
    return make_key(tmp_path, 1)


def _permutations(key, encryption_name="bs+ps"):
    return keys.load(key).permutations(encryption_name, image_size=32, patch_size=8)


@pytest.mark.parametrize("encryption_name", ["bs", "ps", "bs+ps"])
def test_encrypts_what_it_says_and_decrypts_to_the_very_pixels(tmp_path, key, encryption_name):
    written = write_images(tmp_path / "in", ["cat/a.png", "dog/b.png"], size=32)
    options = ["--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES]
    assert _run("encrypt", *options, "--encryption", encryption_name) == 0
    encrypted = read_images(tmp_path / "out")
    expected = {
        f"{name[:3]}/{number:08d}.png": encryption.encrypt(image, _permutations(key, encryption_name), 8)
        for number, (name, image) in enumerate(written.items())
    }
    assert encrypted.keys() == expected.keys()
    for name, image in expected.items():
        np.testing.assert_array_equal(encrypted[name], image)
    assert _run("decrypt", "--key", key, "--input", tmp_path / "out", "--output", tmp_path / "back") == 0
    for image, original in zip(read_images(tmp_path / "back").values(), written.values(), strict=True):
        np.testing.assert_array_equal(image, original)


def test_the_manifest_describes_the_folder(tmp_path, key):
    write_images(tmp_path / "in", FILES)
    assert _run("encrypt", "--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES) == 0
    manifest = manifests.read(tmp_path / "out")
    assert manifest is not None
    header = manifest.header
    assert (header.encryption, header.image_size, header.block_size) == ("bs+ps", 32, 8)
    assert header.key_fingerprint == keys.load(key).fingerprint
    assert list(manifest.files) == NUMBERED
    manifest.check_files()
    assert sorted(contents(tmp_path / "out")) == sorted([*NUMBERED, "manifest.json"])


def test_names_go_or_are_kept_and_their_owner_can_have_them(tmp_path, key):
    write_images(tmp_path / "in", FILES)
    options = ["encrypt", "--key", key, "--input", tmp_path / "in", *SIZES]
    assert _run(*options, "--output", tmp_path / "out", "--names", tmp_path / "names.csv") == 0
    with (tmp_path / "names.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["name", "original"]
    assert dict(rows[1:])["train/cat/00000002"] == "train/cat/Smith.png"
    assert [f"{row[0]}.png" for row in rows[1:]] == NUMBERED
    assert b"Smith" not in b"".join(
        [*contents(tmp_path / "out").values(), *map(str.encode, contents(tmp_path / "out"))]
    )
    assert _run(*options, "--output", tmp_path / "kept", "--keep-names") == 0
    assert sorted(read_images(tmp_path / "kept")) == sorted(f"{Path(name).with_suffix('')}.png" for name in FILES)
    numbered, kept = read_images(tmp_path / "out"), read_images(tmp_path / "kept")
    np.testing.assert_array_equal(numbered["train/cat/00000002.png"], kept["train/cat/Smith.png"])


def test_one_image_there_and_back(tmp_path, key):
    (original,) = write_images(tmp_path, ["Smith.png"], size=32).values()
    options = ["--key", key, *SIZES]
    assert _run("encrypt", *options, "--input", tmp_path / "Smith.png", "--output", tmp_path / "out") == 0
    assert list(read_images(tmp_path / "out")) == ["00000000.png"]
    one = tmp_path / "out" / "00000000.png"
    assert _run("decrypt", "--key", key, "--input", one, "--output", tmp_path / "back") == 0
    np.testing.assert_array_equal(read_images(tmp_path / "back")["00000000.png"], original)
    # Without a manifest, the encryption and the sizes must be given.
    shutil.copy(one, tmp_path / "alone.png")
    assert (
        _run(
            "decrypt", *options, "--encryption=bs+ps", "--input", tmp_path / "alone.png", "--output", tmp_path / "again"
        )
        == 0
    )
    np.testing.assert_array_equal(read_images(tmp_path / "again")["alone.png"], original)


def test_exif_goes_and_its_orientation_is_applied(tmp_path, key):
    (tmp_path / "in").mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112], exif[0x013B] = 6, "Alice Smith"
    image.save(tmp_path / "in" / "a.png", exif=exif, pnginfo=None)
    assert b"Alice Smith" in (tmp_path / "in" / "a.png").read_bytes()
    assert _run("encrypt", "--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES) == 0
    content = (tmp_path / "out" / "00000000.png").read_bytes()
    assert b"Alice" not in content and b"eXIf" not in content
    turned = np.rot90(np.asarray(image), -1)
    (encrypted,) = read_images(tmp_path / "out").values()
    np.testing.assert_array_equal(encrypted, encryption.encrypt(turned, _permutations(key), 8))


def test_augmented_copies_are_of_training_images_alone(tmp_path, key):
    write_images(tmp_path / "in", FILES, size=32)
    options = ["--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES]
    assert _run("encrypt", *options, "--augmentations=2", "--augmentation=flip") == 0
    names = [name for name in NUMBERED if name.startswith("test")]
    names += [name.replace(".png", f"_{copy}.png") for name in NUMBERED[2:] for copy in range(2)]
    assert sorted(read_images(tmp_path / "out")) == sorted(names)
    assert _run("decrypt", "--key", key, "--input", tmp_path / "out", "--output", tmp_path / "back") == 0
    original = np.asarray(Image.open(tmp_path / "in" / "train/dog/c.png"))
    for copy in range(2):
        image = read_images(tmp_path / "back")[f"train/dog/00000004_{copy}.png"]
        assert any(np.array_equal(image, choice) for choice in (original, original[:, ::-1]))


@pytest.mark.slow
@pytest.mark.parametrize("fixed", [True, False])
def test_a_tfds_data_set_there_and_back(tmp_path, key, fixed):
    build(tmp_path / "plain", fixed=fixed)
    options = ["--key", key, "--tfds", "toy"]
    output = tmp_path / "out"
    assert _run("encrypt", *options, "--data-dir", tmp_path / "plain", "--output", output, *SIZES) == 0
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder("toy", data_dir=output)
    assert builder.info.features["label"].names == ["a", "b", "c"]
    assert set(builder.info.features) == {"image", "label"}
    folder = output / "toy" / "1.0.0"
    manifest = manifests.read(folder)
    assert manifest is not None and set(manifest.files) | {"manifest.json"} == set(contents(folder))
    manifest.check_files()
    assert _run("decrypt", *options, "--data-dir", output, "--output", tmp_path / "back") == 0
    plain: Any = tfds.builder("toy", data_dir=tmp_path / "plain")
    back: Any = tfds.builder("toy", data_dir=tmp_path / "back")
    for split, count in COUNTS.items():
        encrypted = builder.as_data_source(split)
        pairs = list(zip(encrypted, back.as_data_source(split), plain.as_data_source(split), strict=True))
        assert len(pairs) == count
        for one, decrypted, original in pairs:
            assert one["label"] == decrypted["label"] == original["label"]
            expected = encryption.encrypt(decrypted["image"], _permutations(key), 8)
            np.testing.assert_array_equal(one["image"], expected)


def test_center_crop_has_two_spellings_and_one_manifest(tmp_path, key, capsys):
    written = write_images(tmp_path / "in", ["a/1.png", "a/2.png"], size=32)
    Image.fromarray(np.tile(next(iter(written.values())), (1, 2, 1))).save(tmp_path / "in" / "a" / "1.png")
    options = ["encrypt", "--key", key, "--input", tmp_path / "in", *SIZES]
    for name in ("center_crop", "centre_crop", "squash"):
        assert _run(*options, f"--resize={name}", "--output", tmp_path / name) == 0
    assert contents(tmp_path / "center_crop") == contents(tmp_path / "centre_crop") != contents(tmp_path / "squash")
    capsys.readouterr()
    assert _run(*options, "--output", tmp_path / "centre_crop") == 0
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        _run(*options, "--resize=pad", "--output", tmp_path / "pad")
    assert "choose center_crop or squash" in capsys.readouterr().err


def test_a_complete_folder_is_left_as_it_is_and_another_run_is_refused(tmp_path, key, capsys):
    write_images(tmp_path / "in", FILES)
    options = ["encrypt", "--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES]
    assert _run(*options) == 0
    before = contents(tmp_path / "out")
    assert _run(*options) == 0
    assert "already complete: there is nothing to do" in capsys.readouterr().out
    changes = (["--encryption=bs"], ["--keep-names"], ["--augmentations=2"], [f"--key={make_key(tmp_path, 2)}"])
    for change in changes:
        assert _run(*options, *change) == 1
        assert "or the output of another command: choose a new folder" in capsys.readouterr().err
    write_images(tmp_path / "in", ["test/cat/another.png"])
    assert _run(*options) == 1
    assert contents(tmp_path / "out") == before


def test_what_cannot_be_read_can_be_left_out(tmp_path, key, capsys):
    write_images(tmp_path / "in", ["a/1.png", "a/2.png", "a/3.png"])
    (tmp_path / "in" / "a" / "2.png").write_bytes(b"not an image")
    (tmp_path / "in" / "a" / "notes.txt").write_text("x")
    options = ["encrypt", "--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES]
    assert _run(*options) == 1
    assert "a/2.png is not an image that can be read" in capsys.readouterr().err
    assert _run(*options, "--skip-unreadable") == 0
    printed = capsys.readouterr()
    assert "left out: " in printed.err and "a/2.png is not an image" in printed.err
    assert "left out: .txt: 1" in printed.err and "2 images, 1 left out, resumed" in printed.out
    assert list(read_images(tmp_path / "out")) == ["a/00000000.png", "a/00000002.png"]
    manifest = manifests.read(tmp_path / "out")
    assert manifest is not None and len(manifest.files) == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take text alone")
def test_names_need_not_be_text(tmp_path, key):
    """The command runs in a process of its own, whose output is a pipe."""
    write_images(tmp_path, ["1.png"])
    odd = tmp_path / "in" / os.fsdecode(b"caf\xe9\n")
    odd.mkdir(parents=True)
    shutil.copy(tmp_path / "1.png", odd / os.fsdecode(b"a\xff.png"))
    (odd / "broken.png").write_bytes(b"")
    command = ["encrypt", "--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", "--keep-names"]
    command += ["--skip-unreadable", "--names", tmp_path / "names.csv"]
    done = subprocess.run([sys.executable, "-m", "ppvit_jax", *map(str, command)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    manifest = manifests.read(tmp_path / "out")
    assert manifest is not None
    manifest.check_files()
    assert [os.fsencode(name) for name in manifest.files] == [b"caf\xe9\n/a\xff.png"]
    assert b"a\xff.png" in (tmp_path / "names.csv").read_bytes()


@pytest.mark.slow
def test_images_of_the_right_size_are_encrypted_without_jax(tmp_path, key):
    write_images(tmp_path / "in", ["a/1.png"], size=32)
    command = ["encrypt", "--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES]
    program = (
        "import sys; import ppvit_jax.commands.encrypt; heavy = ('jax', 'chex', 'flax', 'tensorflow_datasets'); "
        "imported = [name for name in heavy if name in sys.modules]; "
        "from ppvit_jax.__main__ import main; main(sys.argv[1:]); "
        "print(imported, [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[] []"


def test_block_size_and_patch_size_are_two_spellings_of_one_option(tmp_path, key, capsys):
    write_images(tmp_path / "in", ["a/1.png"], size=32)
    options = ["encrypt", "--key", key, "--input", tmp_path / "in", "--image-size=32"]
    for spelling in ("block", "patch"):
        assert _run(*options, f"--{spelling}-size=4", "--output", tmp_path / spelling) == 0
    assert contents(tmp_path / "block") == contents(tmp_path / "patch")
    assert b'"patch_size": 4' in contents(tmp_path / "block")["manifest.json"]
    for spelling in ("block", "patch"):
        options = ["decrypt", "--key", key, "--input", tmp_path / spelling, "--output", tmp_path / f"{spelling} back"]
        capsys.readouterr()
        assert _run(*options, f"--{spelling}-size=8") == 1
        assert "has the block_size 4, not 8: leave --block-size out" in capsys.readouterr().err
        assert _run(*options, f"--{spelling}-size=4") == 0
