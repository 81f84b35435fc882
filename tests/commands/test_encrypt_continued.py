"""Tests of `ppvit encrypt` that is interrupted or killed, on a full disk, and on many images."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.command import make_key
from helpers.command import run_ppvit as _run
from helpers.images import contents, read_images, write_images
from helpers.toy import build

from ppvit_jax.data import manifest as manifests

SIZES = ["--image-size=32", "--patch-size=8"]


@pytest.fixture
def key(tmp_path):
    return make_key(tmp_path, 1)


def _start(*arguments):
    # Tests that run in the background of a shell ignore interrupts, and the process would inherit this.
    program = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('ppvit_jax', run_name='__main__', alter_sys=True)"
    )
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stderr=subprocess.PIPE, text=True)


def _stop_in_the_middle(process, journal, lines, how):
    """Sends the signal as soon as the journal has `lines` lines; returns the errors that the process prints."""
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= lines:
            process.send_signal(how)
            break
        time.sleep(0.001)
    errors = process.communicate()[1]
    assert process.returncode == (130 if how == signal.SIGINT else -how), "it was complete before it could be stopped"
    return errors


@pytest.mark.slow
def test_interrupted_it_says_how_to_go_on_and_does(tmp_path, key):
    write_images(tmp_path / "in", [f"a/{i}.png" for i in range(200)])
    options = ["encrypt", "--key", key, "--input", tmp_path / "in", "--image-size=224"]
    assert _run(*options, "--output", tmp_path / "whole") == 0
    stopped = tmp_path / "stopped"
    process = _start(*options, "--output", stopped)
    errors = _stop_in_the_middle(process, stopped / manifests.JOURNAL, 20, signal.SIGINT)
    assert errors.splitlines()[-1] == "interrupted: run the same command again to continue"
    assert _run(*options, "--output", stopped) == 0
    assert contents(stopped) == contents(tmp_path / "whole")


@pytest.mark.slow
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
    # A crash of the machine may also leave a file cut short and half a line.
    *_, last = done.splitlines()
    (killed / next(iter(json.loads(last)))).write_bytes(b"half")
    journal.write_bytes(done + b'{"half')
    capsys.readouterr()
    assert _run(*options, "--image-size=32", "--output", killed) == 1
    assert "was begun with another key, other images or other options" in capsys.readouterr().err
    assert _run(*options, "--output", killed) == 0
    assert "resumed after an interruption" in capsys.readouterr().out
    assert contents(killed) == contents(tmp_path / "whole")


@pytest.mark.slow
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


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, key):
    """A decoded image of 224x224 takes 0.14 MiB, so the test would notice 600 of them in memory."""
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


@pytest.mark.slow
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
    assert (
        "No space left on device; free some space, then run the same command again to continue"
        in capsys.readouterr().err
    )
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert _run(*options) == 0
    assert len(read_images(tmp_path / "files")) == 1
