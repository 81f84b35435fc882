"""`ppvit encrypt` and `ppvit decrypt`."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import make_key
from images import contents, read_images, write_images
from PIL import Image
from toy import COUNTS, build

from ppvit_jax import __main__ as commands
from ppvit_jax import encryption, keys
from ppvit_jax.command_line import run_command
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


def _run(*arguments):
    return run_command(commands.main, [str(argument) for argument in arguments])


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
    assert (header.encryption, header.image_size, header.patch_size) == ("bs+ps", 32, 8)
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
    # Without a manifest the sizes have to be said.
    shutil.copy(one, tmp_path / "alone.png")
    assert _run("decrypt", *options, "--input", tmp_path / "alone.png", "--output", tmp_path / "again") == 0
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


def test_a_complete_folder_is_left_as_it_is_and_another_run_is_refused(tmp_path, key, capsys):
    write_images(tmp_path / "in", FILES)
    options = ["encrypt", "--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES]
    assert _run(*options) == 0
    before = contents(tmp_path / "out")
    assert _run(*options) == 0
    assert "complete already: nothing to do" in capsys.readouterr().out
    changes = (["--encryption=bs"], ["--keep-names"], ["--augmentations=2"], [f"--key={make_key(tmp_path, 2)}"])
    for change in changes:
        assert _run(*options, *change) == 1
        assert "or other images or options made it: choose a new folder" in capsys.readouterr().err
    write_images(tmp_path / "in", ["test/cat/another.png"])
    assert _run(*options) == 1
    assert contents(tmp_path / "out") == before


def _start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "ppvit_jax", *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )


def _stop_in_the_middle(process, journal, lines, how):
    """Sends the signal as soon as the journal has so many lines; what the process says."""
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= lines:
            process.send_signal(how)
            break
        time.sleep(0.001)
    errors = process.communicate()[1]
    assert process.returncode == (130 if how == signal.SIGINT else -how), "it was complete before it could be stopped"
    return errors


def test_interrupted_it_says_how_to_go_on_and_does(tmp_path, key):
    write_images(tmp_path / "in", [f"a/{i}.png" for i in range(200)])
    options = ["encrypt", "--key", key, "--input", tmp_path / "in", "--image-size=224"]
    assert _run(*options, "--output", tmp_path / "whole") == 0
    stopped = tmp_path / "stopped"
    process = _start(*options, "--output", stopped)
    errors = _stop_in_the_middle(process, stopped / manifests.JOURNAL, 20, signal.SIGINT)
    assert errors == "interrupted: run the same command again to continue\n"
    assert _run(*options, "--output", stopped) == 0
    assert contents(stopped) == contents(tmp_path / "whole")


def test_killed_and_continued_it_is_the_same_file_for_file(tmp_path, key, capsys):
    names = [f"{split}/{label}/{i}.png" for split in ("train", "test") for label in "ab" for i in range(50)]
    write_images(tmp_path / "in", names)
    options = ["encrypt", "--key", key, "--input", tmp_path / "in", "--augmentations=2", "--image-size=224"]
    assert _run(*options, "--output", tmp_path / "whole") == 0
    killed = tmp_path / "killed"
    journal = killed / manifests.JOURNAL
    _stop_in_the_middle(_start(*options, "--output", killed), journal, 20, signal.SIGKILL)
    assert not (killed / "manifest.json").exists()
    done = journal.read_bytes()
    # What a crash of the machine may leave as well: a file cut short, and half a line.
    *_, last = done.splitlines()
    (killed / next(iter(json.loads(last)))).write_bytes(b"half")
    journal.write_bytes(done + b'{"half')
    capsys.readouterr()
    assert _run(*options, "--image-size=32", "--output", killed) == 1
    assert "was begun with another key, other images or other options" in capsys.readouterr().err
    assert _run(*options, "--output", killed) == 0
    assert "continued where it had stopped" in capsys.readouterr().out
    assert contents(killed) == contents(tmp_path / "whole")


def test_a_tfds_data_set_killed_and_continued_is_the_same(tmp_path, key, monkeypatch):
    from ppvit_jax.offline import outputs
    from ppvit_jax.offline.journal import Journal

    monkeypatch.setattr(outputs, "_SHARD_EXAMPLES", 100)
    build(tmp_path / "plain", fixed=True)
    options = ["encrypt", "--key", key, "--tfds=toy", "--data-dir", tmp_path / "plain", *SIZES]
    assert _run(*options, "--output", tmp_path / "whole") == 0
    add = Journal.add

    def add_and_stop(self, files):
        add(self, files)
        if self.done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "add", add_and_stop)
    assert _run(*options, "--output", tmp_path / "killed") == 130
    monkeypatch.setattr(Journal, "add", add)
    assert _run(*options, "--output", tmp_path / "killed") == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert len([name for name in contents(tmp_path / "whole") if "array_record" in name]) == 4


def test_two_at_once_do_not_mix(tmp_path, key, capsys):
    write_images(tmp_path / "in", ["a/1.png", "a/2.png"])
    options = ["encrypt", "--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES]
    header = manifests.Header("bs", "00", 16, 8, "other")
    from ppvit_jax.offline.journal import Journal

    with Journal(tmp_path / "out", header, None):
        assert _run(*options) == 1
    assert "another process is writing to" in capsys.readouterr().err


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
    assert "left out: 1 files that are not images" in printed.out
    assert list(read_images(tmp_path / "out")) == ["a/00000000.png", "a/00000002.png"]
    manifest = manifests.read(tmp_path / "out")
    assert manifest is not None and len(manifest.files) == 2


def _bomb(folder):
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")


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
    "names in another file": (lambda f: None, ["--names={tmp}/1.key"], "exists and is another list"),
    "negative copies": (lambda f: None, ["--augmentations=-1"], "need 0 or more"),
    "no pixels": (lambda f: None, ["--max-pixels=0"], "--max-pixels is 0"),
    "options of tfds": (lambda f: None, ["--splits=train"], "are for --tfds"),
    "an unknown argument": (lambda f: None, ["--keys=3"], "unknown arguments --keys=3"),
}


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
    assert errors.startswith("error: ") and errors.count("\n") == 1
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
    """By somebody without the key, who makes its SHA-256 agree."""
    manifest = manifests.read(folder)
    assert manifest is not None
    manifests.write(folder, manifest.header, manifest.files.items(), lambda digest: "00" * 32)


def _swap(folder):
    one, other = sorted(folder.rglob("*.png"))[:2]
    shutil.copy(one, other)


DAMAGES = {
    "another key": (lambda f: None, ["--key={tmp}/2.key"], r"fingerprint \w+, and the key given has fingerprint \w+"),
    "an edited manifest": (_edit_manifest, [], "its SHA-256 does not agree"),
    "a forged manifest": (_forge_manifest, [], "not made with this key, or was changed since"),
    "an image in another's place": (_swap, [], "is not the file that the manifest describes"),
    "an image less": (lambda f: next(f.rglob("*.png")).unlink(), [], "is missing, but in the manifest"),
    "an image more": (lambda f: write_images(f, ["a/new.png"]), [], "is not in the manifest"),
    "another encryption": (lambda f: None, ["--encryption=bs"], "its encryption is bs\\+ps, and --encryption is bs"),
    "another size": (lambda f: None, ["--image-size=64"], "its image_size is 32, and --image-size is 64"),
    "an unfinished folder": (lambda f: (f / manifests.JOURNAL).write_text(""), [], "is not complete"),
    "no manifest and another size": (lambda f: (f / "manifest.json").unlink(), [], "32 x 32 pixels, and an encrypted"),
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
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert not (tmp_path / "back" / "manifest.json").exists()


def test_encrypting_twice_and_decrypting_twice_are_refused(tmp_path, key, capsys):
    write_images(tmp_path / "in", ["a/1.png"])
    options = ["--key", key, *SIZES]
    assert _run("encrypt", *options, "--input", tmp_path / "in", "--output", tmp_path / "out") == 0
    assert _run("encrypt", *options, "--input", tmp_path / "out", "--output", tmp_path / "twice") == 1
    assert "are encrypted already" in capsys.readouterr().err
    assert _run("decrypt", "--key", key, "--input", tmp_path / "out" / "a", "--output", tmp_path / "back") == 0
    assert _run("decrypt", *options, "--input", tmp_path / "back", "--output", tmp_path / "twice") == 1
    assert "are not encrypted" in capsys.readouterr().err
    assert not (tmp_path / "twice").exists()


def test_memory_does_not_grow_with_the_number_of_images(tmp_path, key):
    """A process of its own; a decoded image of 224x224 takes 0.14 MiB, so that 600 held at once would show."""
    write_images(tmp_path / "first", ["a/0.png"])
    peaks = []
    for count in (100, 700):
        folder = tmp_path / str(count)
        (folder / "a").mkdir(parents=True)
        for number in range(count):
            os.link(tmp_path / "first" / "a" / "0.png", folder / "a" / f"{number}.png")
        command = ["encrypt", "--key", key, "--input", folder, "--output", tmp_path / f"out{count}"]
        printed = subprocess.run(
            [sys.executable, "-m", "ppvit_jax", *map(str, command)], capture_output=True, text=True, check=True
        ).stdout
        found = re.search(rf"{count} images in [\d.]+ s, \d+ images/s, peak memory ([\d,]+) MiB", printed)
        assert found, printed
        peaks.append(int(found[1].replace(",", "")))
    assert peaks[1] - peaks[0] < 30, peaks


def test_a_full_disk_gives_one_line_and_the_command_continues(tmp_path, key, monkeypatch, capsys):
    import array_record.python.array_record_module as array_record

    build(tmp_path / "plain", fixed=True)
    options = ["encrypt", "--key", key, "--tfds=toy", "--data-dir", tmp_path / "plain", *SIZES]

    class Full:
        def __init__(self, path, options):
            self.count = 0

        def write(self, example):
            self.count += 1
            if self.count > 7:
                raise RuntimeError("write() failed: No space left on device;\n at byte 20967424")

    with monkeypatch.context() as patch:
        patch.setattr(array_record, "ArrayRecordWriter", Full)
        assert _run(*options, "--output", tmp_path / "out") == 1
        errors = capsys.readouterr().err
        assert re.search(r"error: cannot write .* No space left on device; .* to continue\n$", errors), errors
    assert _run(*options, "--output", tmp_path / "out") == 0
    assert _run(*options, "--output", tmp_path / "whole") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")

    write_images(tmp_path / "in", ["a/1.png"])
    write_bytes = Path.write_bytes

    def full(path, content):
        raise OSError(28, "No space left on device")

    options = ["encrypt", "--key", key, "--input", tmp_path / "in", "--output", tmp_path / "files", *SIZES]
    monkeypatch.setattr(Path, "write_bytes", full)
    assert _run(*options) == 1
    assert "error: No space left on device; put it right" in capsys.readouterr().err
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert _run(*options) == 0
    assert len(read_images(tmp_path / "files")) == 1


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take text alone")
def test_names_need_not_be_text(tmp_path, key):
    """In a process of its own, whose output is a file."""
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
