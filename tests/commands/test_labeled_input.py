"""CSV lists, Parquet and WebDataset as the input of `ppvit encrypt` and `ppvit predict`."""

from __future__ import annotations

import argparse
import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.command import make_key
from helpers.command import run_ppvit as _run
from helpers.images import contents, read_images, write_images
from helpers.labeled import settings, write_csv, write_folder, write_parquet, write_tar
from helpers.tiny import random_params, tiny_model

from ppvit_jax import checkpoint
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.commands import encrypt
from ppvit_jax.commands.shared import conversion
from ppvit_jax.data import image_folder
from ppvit_jax.data.labeled.loading import loader
from ppvit_jax.errors import UserError

SIZES = ["--image-size=16", "--block-size=4"]
FORMATS = ("csv", "parquet", "webdataset")
NAMES = ("ant", "bee")


@pytest.fixture
def key(tmp_path):
    return make_key(tmp_path, 1)


def write_input(root: Path, name: str) -> Path:
    """Writes an image folder as root/images, and the same images in a format; returns its path."""
    rows = sorted(write_folder(root / "images"), key=lambda row: row[2])
    read = {path: (root / "images" / path).read_bytes() for *_, path in rows}
    if name == "csv":
        lines = [(f"images/{path}", label, split) for split, label, path in rows]
        return write_csv(root / "list.csv", lines, ("path", "label", "split"))
    for split in ("train", "test"):
        chosen = [row for row in rows if row[0] == split]
        if name == "parquet":
            labels = [NAMES.index(label) for _, label, _ in chosen]
            file = root / name / "data" / f"{split}-00000-of-00001.parquet"
            write_parquet(file, [read[path] for *_, path in chosen], labels, class_names=NAMES)
        else:
            members = [
                (f"{path.removesuffix('.png')}.{ending}", content)
                for _, label, path in chosen
                for ending, content in (("png", read[path]), ("cls", label.encode()))
            ]
            write_tar(root / name / f"{split}-000000.tar", members)
    return root / name


@pytest.mark.parametrize("name", FORMATS)
def test_encrypted_images_are_those_of_the_folder(tmp_path, key, name, capsys):
    path = write_input(tmp_path, name)
    assert _run("encrypt", "--key", key, "--input", tmp_path / "images", "--output", tmp_path / "folder", *SIZES) == 0
    names = tmp_path / "names.csv"
    arguments = ["--key", key, f"--{name}", path, "--output", tmp_path / "out", "--names", names, *SIZES]
    assert _run("encrypt", *arguments) == 0
    assert contents(tmp_path / "out").keys() == contents(tmp_path / "folder").keys()
    expected, found = (read_images(tmp_path / folder) for folder in ("folder", "out"))
    assert found.keys() == expected.keys() and len(found) == 16 and "train/bee/00000012.png" in found
    for file, image in found.items():
        np.testing.assert_array_equal(image, expected[file])
    rows = dict(list(csv.reader(names.open()))[1:])
    originals = {
        "csv": "images/train/bee/0.png",
        "parquet": "data/train-00000-of-00001.parquet, row 4",
        "webdataset": "train-000000.tar/train/bee/0.png",
    }
    assert rows["train/bee/00000012"] == originals[name]
    # The cloud reads the result as any folder of encrypted images.
    assert len(image_folder.load(settings(tmp_path / "out", image_size=16)).train) == 8
    capsys.readouterr()
    assert _run("encrypt", *arguments) == 0
    assert "is already complete" in capsys.readouterr().out


@pytest.mark.parametrize("name", FORMATS)
def test_other_images_are_noticed(tmp_path, key, name, capsys):
    path = write_input(tmp_path, name)
    arguments = ["--key", key, f"--{name}", path, "--output", tmp_path / "out", *SIZES]
    assert _run("encrypt", *arguments, "--splits=test") == 0
    assert sorted(read_images(tmp_path / "out"))[::7] == ["test/ant/00000000.png", "test/bee/00000007.png"]
    if name == "csv":
        write_images(tmp_path / "images", ["test/ant/0.png"], seed=1)
    else:
        shutil.rmtree(path)
        write_images(tmp_path / "other", ["a.png"], seed=1)
        content = (tmp_path / "other" / "a.png").read_bytes()
        if name == "parquet":
            write_parquet(path / "data" / "test-00000-of-00001.parquet", [content] * 8, [0, 1] * 4, class_names=NAMES)
        else:
            write_tar(path / "test-000000.tar", [("1.png", content), ("1.cls", b"ant")])
    assert _run("encrypt", *arguments, *(["--splits=test"] if name == "csv" else [])) == 1
    assert f"{tmp_path / 'out'} was made from other images" in capsys.readouterr().err


def test_images_without_labels_have_no_class_folders(tmp_path, key):
    write_images(tmp_path, ["a.png", "b.png"])
    file = write_csv(tmp_path / "list.csv", [["a.png"], ["b.png"]], ["path"])
    assert _run("encrypt", "--key", key, "--csv", file, "--output", tmp_path / "out", *SIZES) == 0
    assert sorted(read_images(tmp_path / "out")) == ["00000000.png", "00000001.png"]


def test_training_images_get_augmented_copies(tmp_path, key):
    file = write_input(tmp_path, "csv")
    options = ["--augmentations=2", "--augmentation=flip"]
    assert _run("encrypt", "--key", key, "--csv", file, "--output", tmp_path / "out", *SIZES, *options) == 0
    names = sorted(read_images(tmp_path / "out"))
    assert len(names) == 8 + 16 and names[0] == "test/ant/00000000.png" and names[8] == "train/ant/00000008_0.png"


def test_an_image_that_cannot_be_read_can_be_left_out(tmp_path, key, capsys):
    write_images(tmp_path, ["a.png", "b.png"])
    (tmp_path / "b.png").write_text("text")
    file = write_csv(tmp_path / "list.csv", [("a.png", "x"), ("b.png", "y")])
    arguments = ["--key", key, "--csv", file, *SIZES]
    assert _run("encrypt", *arguments, "--output", tmp_path / "one") == 1
    assert f"{tmp_path}/b.png is not an image that can be read" in capsys.readouterr().err
    assert _run("encrypt", *arguments, "--output", tmp_path / "two", "--skip-unreadable") == 0
    assert sorted(read_images(tmp_path / "two")) == ["x/00000000.png"]


REFUSED = {
    "names": (["--keep-names"], "--keep-names is for image files and tfds: leave it out for --csv"),
    "a folder of data sets": (["--data-dir=x"], "--data-dir and --splits need --tfds"),
    "a split": (["--splits=val"], "has no split 'val': choose among "),
    "a column": (["--label-column=kind"], "has no column 'kind'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_that_are_refused(tmp_path, key, case, capsys):
    options, message = REFUSED[case]
    file = write_input(tmp_path, "csv")
    assert _run("encrypt", "--key", key, "--csv", file, "--output", tmp_path / "out", *SIZES, *options) == 1
    assert message in (text := capsys.readouterr().err) and len(text.strip().splitlines()) == 1


def test_a_runner_reads_image_files_and_tfds_alone(tmp_path):
    parser = argparse.ArgumentParser()
    encrypt.add_arguments(parser)
    words = ["--key=k", f"--csv={tmp_path}/a.csv", f"--output={tmp_path}/out", "--runner=DirectRunner"]
    with pytest.raises(UserError, match="--runner is for image files and tfds: leave it out for --csv"):
        conversion.parse_input(parser.parse_args(words))


def test_the_output_lies_outside_the_input(tmp_path, key, capsys):
    path = write_input(tmp_path, "parquet")
    assert _run("encrypt", "--key", key, "--parquet", path, "--output", path / "out", *SIZES) == 1
    assert "lies in the input" in capsys.readouterr().err


def test_a_column_needs_a_format(tmp_path, key, capsys):
    write_images(tmp_path / "in", ["a.png"])
    arguments = ["--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES]
    assert _run("encrypt", *arguments, "--label-column=kind") == 1
    assert "need one of --parquet, --webdataset, --csv: leave them out" in capsys.readouterr().err


def test_encrypted_images_are_not_encrypted_again(tmp_path, key, capsys):
    write_images(tmp_path / "in", ["a.png"])
    assert _run("encrypt", "--key", key, "--input", tmp_path / "in", "--output", tmp_path / "out", *SIZES) == 0
    file = write_csv(tmp_path / "list.csv", [["out/00000000.png"]], ["path"])
    assert _run("encrypt", "--key", key, "--csv", file, "--output", tmp_path / "again", *SIZES) == 1
    assert f"the images in {tmp_path / 'out'} are already encrypted with the key" in capsys.readouterr().err


@pytest.mark.parametrize("class_name", [".ant", "train", "n/a", ".."])
def test_a_list_tells_the_classes_that_folders_cannot(tmp_path, key, class_name, capsys):
    write_images(tmp_path, [f"{number}.png" for number in range(4)])
    lines = [(f"{number}.png", (class_name, "bee")[number % 2]) for number in range(4)]
    arguments = ["--key", key, "--csv", write_csv(tmp_path / "list.csv", lines), "--output", tmp_path / "out", *SIZES]
    assert _run("encrypt", *arguments) == 0
    assert "labels.csv lists the labels, which class folders cannot tell: train on it with" in capsys.readouterr().err
    text = (tmp_path / "out" / "labels.csv").read_text()
    assert text == "path,label\n" + "".join(f"{n:08d}.png,{(class_name, 'bee')[n % 2]}\n" for n in range(4))
    (tmp_path / "out" / "labels.csv").unlink()
    assert _run("encrypt", *arguments) == 0
    assert (tmp_path / "out" / "labels.csv").read_text() == text
    loaded = loader("csv")(settings(tmp_path / "out" / "labels.csv", image_size=16))
    assert loaded.class_names == tuple(sorted((class_name, "bee"))) and loaded.manifest
    assert loaded.manifest.header.encryption == "bs+ps"


@pytest.mark.slow
def test_a_list_tells_several_labels_of_each_copy(tmp_path, key):
    write_images(tmp_path, [f"{number}.png" for number in range(5)])
    labels = ["sea;sky", "sea", "", "sky", ";"]
    splits = ["train", "train", "train", "test", "test"]
    lines = [(f"{n}.png", label, split) for n, (label, split) in enumerate(zip(labels, splits, strict=True))]
    file = write_csv(tmp_path / "list.csv", lines, ("path", "label", "split"))
    arguments = ["--key", key, "--csv", file, "--output", tmp_path / "out", *SIZES, "--augmentations=2"]
    assert _run("encrypt", *arguments) == 0
    loaded = loader("csv")(settings(tmp_path / "out" / "labels.csv", image_size=16))
    assert loaded.class_names == ("sea", "sky") and loaded.test.labels.tolist() == [[0, 1], [0, 0]]
    assert loaded.train.labels.tolist() == [[1, 1]] * 2 + [[1, 0]] * 2 + [[0, 0]] * 2
    assert loaded.train_digest and loaded.manifest and loaded.manifest.header.copies == 2


def test_a_class_with_a_semicolon_is_refused_where_a_list_is_needed(tmp_path, key, capsys):
    path = tmp_path / "train.parquet"
    write_images(tmp_path, ["a.png"])
    write_parquet(path, [(tmp_path / "a.png").read_bytes()] * 2, [["a;b"], ["c"]])
    assert _run("encrypt", "--key", key, "--parquet", path, "--output", tmp_path / "out", *SIZES) == 1
    assert "the class name 'a;b' has a ';' or a space at its end: rename the class" in capsys.readouterr().err


@pytest.mark.slow
def test_predictions_are_those_of_the_folder(tmp_path, key, capsys):
    model = tiny_model(image_size=16, patch_size=4, num_classes=2)
    checkpoint.write(tmp_path / "plain.npz", random_params(model), Metadata("", 16, class_names=NAMES))

    def predict(*source):
        (tmp_path / "out.npz").unlink(missing_ok=True)
        arguments = ["--checkpoint", tmp_path / "plain.npz", "--output", tmp_path / "out.npz", "--batch-size=8"]
        assert _run("predict", *arguments, *source) == 0
        with np.load(tmp_path / "out.npz") as file:
            return file["logits"], file["files"].tolist()

    paths = {name: write_input(tmp_path, name) for name in FORMATS}
    expected, _ = predict("--input", tmp_path / "images")
    for name, path in paths.items():
        logits, files = predict(f"--{name}", path)
        np.testing.assert_array_equal(logits, expected)
        assert len(files) == 16
    logits, files = predict("--webdataset", paths["webdataset"], "--splits=train")
    np.testing.assert_array_equal(logits, expected[8:])
    assert files[0] == "train-000000.tar/train/ant/0.png"
    # A list of encrypted images has their manifest, and does not fit the plain model.
    assert _run("encrypt", "--key", key, "--input", tmp_path / "images", "--output", tmp_path / "enc", *SIZES) == 0
    file = write_csv(tmp_path / "enc.csv", [["enc/test/ant/00000000.png"]], ["path"])
    capsys.readouterr()
    arguments = ["--checkpoint", tmp_path / "plain.npz", "--output", tmp_path / "no.npz"]
    assert _run("predict", *arguments, "--csv", file) == 1
    assert "bs+ps" in capsys.readouterr().err
    assert _run("predict", *arguments, "--input", tmp_path / "enc", "--splits=test") == 1
    assert "need one of --parquet, --webdataset, --csv" in capsys.readouterr().err
