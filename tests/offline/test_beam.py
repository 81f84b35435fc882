"""`ppvit encrypt --runner`: the same files as without a runner, and no secret for the runner."""

import dataclasses
import json
import logging
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from apache_beam.internal import pickler
from apache_beam.internal.cloudpickle import cloudpickle
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.utils import proto_utils
from helpers.command import make_key, run_ppvit
from helpers.images import contents, write_images
from helpers.needles import needles
from helpers.toy import build as build_toy

from ppvit_jax import keys
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.images import ImageReader
from ppvit_jax.errors import UserError
from ppvit_jax.offline import beam, outputs, worker
from ppvit_jax.offline.journal import Journal
from ppvit_jax.offline.recipe import Augmentation
from ppvit_jax.offline.worker import KeyFile, Task, open_task

SIZES = ["--image-size=32", "--patch-size=8"]
FILES = [f"{split}/{label}/Smith {i}.png" for split in ("train", "test") for label in ("cat", "dog") for i in range(4)]
RUNNER = "--runner=DirectRunner"
# Two workers process each bundle twice.
RUNNER_OPTIONS = [RUNNER, *(f"--runner-option={option}" for option in (
    "direct_num_workers=2", "direct_running_mode=multi_threading", "direct_runner_bundle_repeat=1"
))]  # fmt: skip


@pytest.fixture
def key(tmp_path):
    return make_key(tmp_path, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "runner"),
    [
        (["--augmentations=2", "--augmentation=flip+crop"], RUNNER_OPTIONS),
        (["--keep-names", "--encryption=ele", "--resize=squash"], [RUNNER]),
        # The workers are processes, and each image has a key of its own.
        (
            ["--encryption=pe:keys=per_image"],
            [RUNNER, "--runner-option=direct_num_workers=2", "--runner-option=direct_running_mode=multi_processing"],
        ),
    ],
)
def test_a_folder_comes_out_the_same(tmp_path, key, capsys, options, runner):
    write_images(tmp_path / "in", FILES)
    (tmp_path / "in" / "train" / "cat" / "Smith 1.png").write_bytes(b"not an image")
    command = ["encrypt", "--key", key, "--input", tmp_path / "in", "--skip-unreadable", *SIZES, *options]
    assert run_ppvit(*command, "--output", tmp_path / "one", "--names", tmp_path / "names.csv") == 0
    one = capsys.readouterr()
    assert run_ppvit(*command, "--output", tmp_path / "many", "--names", tmp_path / "again.csv", *runner) == 0
    many = capsys.readouterr()
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "names.csv").read_bytes()
    message = "left out: .*Smith 1.png is not an image"
    assert len(re.findall(message, one.err)) == len(re.findall(message, many.err)) == 1
    assert run_ppvit(*command, "--output", tmp_path / "many", *runner) == 0
    assert "already complete: there is nothing to do" in capsys.readouterr().out


@pytest.mark.slow
def test_a_tfds_data_set_comes_out_the_same(tmp_path, key, monkeypatch):
    monkeypatch.setattr(outputs, "_SHARD_EXAMPLES", 100)
    build_toy(tmp_path / "plain", fixed=True)
    options = ["encrypt", "--key", key, "--tfds=toy", "--data-dir", tmp_path / "plain", "--augmentations=2", *SIZES]
    assert run_ppvit(*options, "--output", tmp_path / "one") == 0
    assert run_ppvit(*options, "--output", tmp_path / "many", RUNNER) == 0
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert len([name for name in contents(tmp_path / "one") if "array_record" in name]) == 4


@pytest.mark.slow
def test_a_plain_folder_with_a_manifest_is_compared_with_it(tmp_path, key, capsys):
    write_images(tmp_path / "first", FILES, size=32)
    options = ["--key", key, *SIZES]
    assert run_ppvit("encrypt", *options, "--input", tmp_path / "first", "--output", tmp_path / "out") == 0
    assert run_ppvit("decrypt", "--key", key, "--input", tmp_path / "out", "--output", tmp_path / "in") == 0
    options = ["encrypt", *options, "--input", tmp_path / "in"]
    assert run_ppvit(*options, "--output", tmp_path / "many", RUNNER) == 0
    assert run_ppvit(*options, "--output", tmp_path / "one") == 0
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    one, other, *_ = sorted((tmp_path / "in").rglob("*.png"))
    one.write_bytes(other.read_bytes())
    capsys.readouterr()
    assert run_ppvit(*options, "--output", tmp_path / "again", RUNNER) == 1
    assert f"{one} is not the file that the manifest describes" in capsys.readouterr().err


def _task(folder, key_file):
    return Task(
        output=folder / "out",
        root=folder / "in",
        splits=None,
        reader=ImageReader(32, "squash", 10_000),
        key=KeyFile(key_file, None, keys.load(key_file).fingerprint),
        encryption="bs+ps",
        image_size=32,
        block_size=8,
        augmentation=Augmentation(),
        skip_unreadable=False,
    )


def _told(pipeline):
    """Returns all that the service of a runner receives, with its compressed parts unpacked."""
    proto = pipeline.to_runner_api()
    parts = {"graph": proto.SerializeToString()}
    for name, transform in proto.components.transforms.items():
        if transform.spec.urn == common_urns.primitives.PAR_DO.urn:
            payload: Any = proto_utils.parse_Bytes(transform.spec.payload, beam_runner_api_pb2.ParDoPayload)
            parts[name] = cloudpickle.dumps(pickler.loads(payload.do_fn.payload))
    return parts


@pytest.mark.slow
def test_no_secret_and_no_name_of_an_image_is_in_what_a_runner_is_given(tmp_path, key, monkeypatch):
    write_images(tmp_path / "in", FILES)
    built = []
    build = beam.build

    def note(*arguments):
        built.append(build(*arguments))
        return built[-1]

    monkeypatch.setattr(beam, "build", note)
    options = ["encrypt", "--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES]
    assert run_ppvit(*options, RUNNER) == 0
    parts = _told(built[0])
    secrets = list(needles(keys.load(key), image_size=32, patch_size=8))

    def found(parts):
        return {name for part in parts.values() for name, needle in [*secrets, ("name", b"Smith")] if needle in part}

    assert keys.load(key).fingerprint.encode() in b"".join(parts.values())
    assert found(parts) == set()
    # The search finds a key or a permutation in a task, and names among the elements.
    opened = keys.load(key)
    (tmp_path / "out" / manifests.UNFINISHED).mkdir()
    for secret, name in ((opened, "master key"), (opened.permutation("block", 16), "block permutation")):
        task = dataclasses.replace(_task(tmp_path, key), encryption=secret)
        assert name in found(_told(build(task, [(0, 1)], "DirectRunner", [])))
    names: Any = ["Smith"]
    assert "name" in found(_told(build(_task(tmp_path, key), names, "DirectRunner", [])))


def _kill_in_the_middle(command, unfinished, count):
    """Kills the process as soon as workers have recorded `count` images."""
    process = subprocess.Popen([sys.executable, "-m", "ppvit_jax", *map(str, command)], stderr=subprocess.PIPE)
    while process.poll() is None:
        if sum(path.read_bytes().count(b"\n") for path in unfinished.glob("*.jsonl")) >= count:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was complete before it could be killed"


@pytest.mark.slow
@pytest.mark.parametrize("with_runner", [True, False])
def test_killed_it_continues_with_a_runner_or_without(tmp_path, key, capsys, with_runner):
    write_images(tmp_path / "in", [f"a/{i}.png" for i in range(150)])
    options = ["encrypt", "--key", key, "--input", tmp_path / "in", "--image-size=224"]
    assert run_ppvit(*options, "--output", tmp_path / "whole") == 0
    killed = tmp_path / "killed"
    unfinished = killed / manifests.UNFINISHED
    _kill_in_the_middle([*options, "--output", killed, RUNNER], unfinished, 20)
    assert not (killed / "manifest.json").exists()
    (records,) = unfinished.glob("*.jsonl")
    lines = records.read_bytes().splitlines()
    kept, lost = (killed / next(iter(json.loads(line)[1])) for line in lines[:2])
    # A crash of the machine may also leave a file cut short and half a record.
    lost.write_bytes(b"half")
    with records.open("ab") as file:
        file.write(b'[1, {"half')
    before = kept.stat()
    capsys.readouterr()
    for changed in (["--seed=3"], ["--seed=3", RUNNER]):
        assert run_ppvit(*options, *changed, "--output", killed) == 1
        assert "was begun with another key, other images or other options" in capsys.readouterr().err
    assert run_ppvit(*options, "--output", killed, *([RUNNER] if with_runner else [])) == 0
    assert "resumed after an interruption" in capsys.readouterr().out
    assert contents(killed) == contents(tmp_path / "whole")
    assert kept.stat().st_ino == before.st_ino and kept.stat().st_mtime_ns == before.st_mtime_ns


def test_it_continues_what_was_begun_without_a_runner(tmp_path, key, monkeypatch):
    write_images(tmp_path / "in", FILES)
    options = ["encrypt", "--key", key, "--input", tmp_path / "in", *SIZES]
    add = Journal.add

    def add_and_stop(self, files):
        add(self, files)
        if self.done == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", add_and_stop)
        assert run_ppvit(*options, "--output", tmp_path / "out") == 130
    assert run_ppvit(*options, "--output", tmp_path / "out", RUNNER) == 0
    assert run_ppvit(*options, "--output", tmp_path / "whole") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_interrupted_it_says_how_to_go_on_and_does(tmp_path, key, monkeypatch, capsys):
    write_images(tmp_path / "in", FILES)
    options = ["encrypt", "--key", key, "--input", tmp_path / "in", *SIZES]
    written = []

    def write_some(*arguments):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(outputs.write_image(*arguments))
        return written[-1]

    with monkeypatch.context() as patch:
        patch.setattr(worker, "write_image", write_some)
        assert run_ppvit(*options, "--output", tmp_path / "out", RUNNER) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted: run the same command again to continue"
    assert run_ppvit(*options, "--output", tmp_path / "out", RUNNER) == 0
    assert "resumed after an interruption" in capsys.readouterr().out
    assert run_ppvit(*options, "--output", tmp_path / "whole") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def _damage(folder):
    (folder / "in" / FILES[3]).write_bytes(b"MZ")


MISTAKES = {
    "an image that cannot be read": (_damage, [RUNNER], "Smith 3.png is not an image"),
    "a value that is none": (None, [RUNNER, "--runner-option=direct_num_workers=x"], "invalid int value: 'x'"),
    "a runner that lacks options": (None, ["--runner=PortableRunner"], "must specify a --job_endpoint"),
    "an option without a runner": (None, ["--runner-option=region=here"], "needs a --runner"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_line_and_the_command_continues(tmp_path, key, capfd, mistake):
    make, extra, message = MISTAKES[mistake]
    written = write_images(tmp_path / "in", FILES)
    content = (tmp_path / "in" / FILES[3]).read_bytes()
    if make:
        make(tmp_path)
    options = ["encrypt", "--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES]
    assert run_ppvit(*options, *extra) == 1
    errors = capfd.readouterr().err
    assert re.search(message, errors), errors
    *summary, last = errors.splitlines()
    assert last.startswith("error: ") and all(line.startswith(f"{tmp_path / 'in'}") for line in summary), errors
    assert not (tmp_path / "out" / "manifest.json").exists()
    (tmp_path / "in" / FILES[3]).write_bytes(content)
    # The repaired image has another size, which makes it another input.
    output = tmp_path / ("other" if make else "out")
    assert run_ppvit(*options, "--output", output, RUNNER) == 0
    assert len(list(output.rglob("*.png"))) == len(written)


def test_a_worker_with_another_key_or_other_packages_writes_nothing(tmp_path, key):
    task = _task(tmp_path, key)
    with pytest.raises(UserError, match=r"pillow .* but this machine has pillow 1: install the same"):
        open_task(dataclasses.replace(task, versions="pillow 1"))
    with pytest.raises(UserError, match=r"2.key on a worker has fingerprint .*: give workers the same key"):
        open_task(dataclasses.replace(task, key=dataclasses.replace(task.key, path=make_key(tmp_path, 2))))


@pytest.mark.parametrize("level", [logging.NOTSET, logging.ERROR])
def test_the_import_of_beam_leaves_logging_as_it_was(tmp_path, key, level):
    write_images(tmp_path / "in", FILES)
    options = ["encrypt", "--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES]
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        assert run_ppvit(*options, RUNNER) == 0
        assert logging.root.manager.disable == level
    finally:
        logging.disable(before)


def test_without_beam_one_line_says_what_to_install(tmp_path, key, monkeypatch, capsys):
    write_images(tmp_path / "in", FILES)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "ppvit_jax.offline.beam")
    monkeypatch.delattr("ppvit_jax.offline.beam")
    options = ["encrypt", "--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES]
    assert run_ppvit(*options, RUNNER) == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and "run pip install 'ppvit-jax[beam]'" in errors
    assert not Path(tmp_path / "out").exists()
    assert run_ppvit(*options) == 0
