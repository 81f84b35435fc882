"""Preparation of CIFAR from a synthetic archive, read back through plain tfds."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppvit_jax import data
from ppvit_jax.commands import prepare as command
from ppvit_jax.data import cifar
from ppvit_jax.errors import UserError
from ppvit_jax.experiments import protocols

REPOSITORY = Path(__file__).parents[2]
LAYOUT = {
    "cifar10": ("cifar-10-batches-bin", [f"data_batch_{n}.bin" for n in range(1, 6)], "test_batch.bin"),
    "cifar100": ("cifar-100-binary", ["train.bin"], "test.bin"),
}
NAMES = {
    "cifar10": {"batches.meta.txt": [f"ten {n}" for n in range(10)]},
    "cifar100": {
        "coarse_label_names.txt": [f"coarse {n}" for n in range(20)],
        "fine_label_names.txt": [f"fine {n}" for n in range(100)],
    },
}


def records(name: str, count: int, seed: int) -> np.ndarray:
    """Returns raw records: the label bytes, then red, green and blue planes of 32x32."""
    generator = np.random.default_rng(seed)
    limits = [10] if name == "cifar10" else [20, 100]
    labels = np.stack([generator.integers(0, limit, count) for limit in limits], 1)
    return np.concatenate([labels, generator.integers(0, 256, (count, 3072))], 1).astype(np.uint8)


def contents(name: str) -> dict[str, bytes]:
    folder, train, test = LAYOUT[name]
    files = {file: records(name, 4, seed).tobytes() for seed, file in enumerate([*train, test])}
    files |= {file: ("\n".join(lines) + "\n\n").encode() for file, lines in NAMES[name].items()}
    return {f"{folder}/{file}": content for file, content in files.items()}


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def archives(tmp_path):
    return {name: write_archive(tmp_path / f"{name}.tar.gz", contents(name)) for name in LAYOUT}


@pytest.mark.parametrize("name", LAYOUT)
def test_plain_tfds_reads_the_very_pixels(name, tmp_path, archives):
    import tensorflow_datasets as tfds

    root = tmp_path / "data"
    folder = cifar.prepare(name, root, archives[name], allow_other_archive=True)
    builder: Any = tfds.builder(name, data_dir=root)
    assert folder == Path(builder.data_path) == root / name / str(builder.version)
    assert type(builder).__module__.startswith("tensorflow_datasets.")  # tfds' own, not ours
    train = LAYOUT[name][1]
    for split, prefix, seeds in (("train", "train_", range(len(train))), ("test", "test_", [len(train)])):
        raw = np.concatenate([records(name, 4, seed) for seed in seeds])
        source: Any = builder.as_data_source(split)
        assert len(source) == len(raw)
        found = {example["id"].decode(): example for example in source}
        assert set(found) == {f"{prefix}{number:05d}" for number in range(len(raw))}
        for number, record in enumerate(raw):
            example = found[f"{prefix}{number:05d}"]
            planes = record[-3072:].reshape(3, 32, 32)
            for channel in range(3):
                np.testing.assert_array_equal(example["image"][:, :, channel], planes[channel])
            if name == "cifar100":
                assert (example["coarse_label"], example["label"]) == (record[0], record[1])
            else:
                assert example["label"] == record[0]
    features: Any = builder.info.features
    names = features["label"].names
    assert names == (NAMES[name]["batches.meta.txt" if name == "cifar10" else "fine_label_names.txt"])
    assert [path.name for path in root.iterdir()] == [name]
    assert [path.name for path in (root / name).iterdir()] == [str(builder.version)]


def test_checksums_are_those_that_tfds_publishes():
    import tensorflow_datasets as tfds

    for name, archive in (("cifar10", "cifar-10-binary.tar.gz"), ("cifar100", "cifar-100-binary.tar.gz")):
        lines = (Path(tfds.__file__).parent / "url_checksums" / f"{name}.txt").read_text().splitlines()
        (published,) = {line.split("\t")[2] for line in lines if line.endswith(archive)}
        assert cifar._LAYOUTS[name].sha256 == published


@pytest.mark.slow
def test_no_tensorflow(tmp_path, archives):
    """Neither preparing nor reading may import TensorFlow, even if it is installed."""
    fake = tmp_path / "modules/tensorflow/__init__.py"
    fake.parent.mkdir(parents=True)
    fake.write_text("raise AssertionError('TensorFlow is imported')")
    script = """
import pathlib
import sys
import ml_collections
from ppvit_jax import data
from ppvit_jax.data import cifar
cifar.prepare("cifar10", pathlib.Path(sys.argv[1]), sys.argv[2], allow_other_archive=True)
fields = dict(source="tfds", name="cifar10", dir=sys.argv[1], train_split="train", test_split="test",
              test_fraction=0.2, resize="squash", max_pixels=10_000, train_examples=15, test_examples=3)
for in_memory in (True, False):
    loaded = data.load(ml_collections.ConfigDict(fields | dict(in_memory=in_memory)), 32)
    assert (loaded.name, len(loaded.train), len(loaded.test)) == ("cifar10", 15, 3)
    assert loaded.class_names == tuple(f"ten {n}" for n in range(10))
    batches = data.train_batches(loaded.train, data.BatchOptions(5), seed=0, start_step=0, stop_step=5)
    assert sum(batch["image"].shape == (5, 32, 32, 3) for batch in batches) == 5
assert "tensorflow" not in sys.modules
"""
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "data"), str(archives["cifar10"])],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(fake.parents[1])))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_what_is_prepared_is_left_alone(tmp_path, archives):
    folder = cifar.prepare("cifar10", tmp_path / "data", archives["cifar10"], allow_other_archive=True)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    assert cifar.prepare("cifar10", tmp_path / "data", tmp_path / "absent.tar.gz") == folder
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def damaged(change: str) -> bytes | dict[str, bytes]:
    files = contents("cifar10")
    batch = "cifar-10-batches-bin/data_batch_3.bin"
    match change:
        case "no tar":
            return b"hello"
        case "missing file":
            del files[batch]
        case "half a record":
            files[batch] = files[batch][:-1]
        case "empty batch":
            files[batch] = b""
        case "label out of range":
            files[batch] = b"\x0a" + files[batch][1:]
        case "too few names":
            files["cifar-10-batches-bin/batches.meta.txt"] = b"one\ntwo\n"
    return files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no tar", "cannot read the archive"),
        ("missing file", r"lacks cifar-10-batches-bin/data_batch_3\.bin"),
        ("half a record", r"data_batch_3\.bin .* not a whole number of records"),
        ("empty batch", r"data_batch_3\.bin .* not a whole number of records"),
        ("label out of range", r"data_batch_3\.bin .* label out of range"),
        ("too few names", "does not name 10 classes"),
    ],
)
def test_a_damaged_archive_leaves_nothing_behind(tmp_path, change, message):
    archive, content = tmp_path / "x.tar.gz", damaged(change)
    if isinstance(content, bytes):
        archive.write_bytes(content)
    else:
        write_archive(archive, content)
    with pytest.raises(UserError, match=message):
        cifar.prepare("cifar10", tmp_path / "new/data", archive, allow_other_archive=True)
    assert list(tmp_path.iterdir()) == [archive]


def test_a_truncated_archive(tmp_path, archives):
    archives["cifar10"].write_bytes(archives["cifar10"].read_bytes()[:20_000])
    with pytest.raises(UserError, match="cannot read the archive"):
        cifar.prepare("cifar10", tmp_path / "data", archives["cifar10"], allow_other_archive=True)
    assert not (tmp_path / "data").exists()


def test_a_failure_half_way_leaves_nothing_behind(tmp_path, archives, monkeypatch):
    encode, calls = cifar._png, []

    def fail_at_last(pixels):
        calls.append(1)
        if len(calls) == 22:
            raise OSError(28, "No space left on device")
        return encode(pixels)

    monkeypatch.setattr(cifar, "_png", fail_at_last)
    with pytest.raises(UserError, match="No space left"):
        cifar.prepare("cifar10", tmp_path / "data", archives["cifar10"], allow_other_archive=True)
    assert len(calls) == 22 and not (tmp_path / "data").exists()


def test_another_archive_is_refused(tmp_path, archives):
    with pytest.raises(UserError, match=r"is not the published cifar-10-binary\.tar\.gz"):
        cifar.prepare("cifar10", tmp_path / "data", archives["cifar10"])
    assert not (tmp_path / "data").exists()


def test_a_download_is_checked_and_a_failed_one_explained(tmp_path, archives, monkeypatch):
    root = tmp_path / "data"
    monkeypatch.setattr(cifar, "_URL", f"{tmp_path.as_uri()}/")
    with pytest.raises(UserError, match=r"cannot download .*cifar-10-binary\.tar\.gz.*--archive FILE") as caught:
        cifar.prepare("cifar10", root)
    assert "\n" not in str(caught.value) and not root.exists()
    archives["cifar10"].rename(tmp_path / "cifar-10-binary.tar.gz")
    with pytest.raises(UserError, match="is not the published"):
        cifar.prepare("cifar10", root)
    assert cifar.prepare("cifar10", root, allow_other_archive=True).is_dir()
    assert [path.name for path in root.iterdir()] == ["cifar10"]


def test_a_run_downloads_what_is_missing_if_it_may(tmp_path, archives, monkeypatch, capsys):
    archive = archives["cifar10"].rename(tmp_path / "cifar-10-binary.tar.gz")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar, "_URL", f"{tmp_path.as_uri()}/")
    monkeypatch.setitem(cifar._LAYOUTS, "cifar10", dataclasses.replace(cifar._LAYOUTS["cifar10"], sha256=digest))
    config = protocols.paper()
    config.data.dir = str(tmp_path / "data")
    config.data.download = False
    with pytest.raises(UserError, match="prepare it with `ppvit prepare cifar10"):
        data.load(config.data, 32, 0)
    config.data.download = True
    assert len(data.load(config.data, 32, 0).train) == 20
    assert "cifar10 is not in" in capsys.readouterr().err
    # The second run needs no network.
    archive.unlink()
    assert len(data.load(config.data, 32, 0).test) == 4
    assert "cifar10 is not in" not in capsys.readouterr().err
    config.data.name = "cifar100"
    with pytest.raises(UserError, match=r"cannot download .* run `ppvit prepare cifar100 --archive FILE`"):
        data.load(config.data, 32, 0)
    # Other data sets are not downloaded.
    config.data.name = "imagenette/320px-v2"
    with pytest.raises(UserError, match="tfds build imagenette"):
        data.load(config.data, 32, 0)


def test_another_process_may_prepare_it_first(tmp_path, archives, monkeypatch):
    write = cifar._write

    def lose_the_race(builder, scratch):
        write(builder, scratch)
        raise OSError(errno.ENOTEMPTY, "Directory not empty", str(builder.data_path))

    monkeypatch.setattr(cifar, "_write", lose_the_race)
    folder = cifar.prepare("cifar10", tmp_path / "data", archives["cifar10"], allow_other_archive=True)
    assert (folder / "dataset_info.json").is_file()


def test_unknown_name_and_missing_archive(tmp_path):
    with pytest.raises(UserError, match="choose among cifar10, cifar100"):
        cifar.prepare("mnist", tmp_path)
    with pytest.raises(UserError, match=r"cannot read the archive .*absent\.tar\.gz.*--archive"):
        cifar.prepare("cifar10", tmp_path / "data", tmp_path / "absent.tar.gz")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot prepare cifar10 .*file"):
        cifar.prepare("cifar10", tmp_path / "file", tmp_path / "absent.tar.gz")


def test_command(tmp_path, archives, monkeypatch, capsys):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "default"))
    arguments = parser.parse_args(["cifar100", "--archive", str(archives["cifar100"])])
    with pytest.raises(UserError, match="is not the published"):
        command.run(arguments)
    cifar.prepare("cifar100", tmp_path / "default", archives["cifar100"], allow_other_archive=True)
    capsys.readouterr()
    command.run(arguments)
    (folder,) = (tmp_path / "default/cifar100").iterdir()
    assert capsys.readouterr().out == f"cifar100 is in {folder}\n"
