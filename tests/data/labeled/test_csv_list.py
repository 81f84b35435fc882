"""Data source "csv": lists of paths and labels, and the lists that are refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from helpers.images import write_images
from helpers.labeled import content_of, settings, write_csv, write_folder
from hypothesis import HealthCheck, example, given
from hypothesis import settings as examples_of
from hypothesis import strategies as st

from ppvit_jax import data
from ppvit_jax.data import image_folder
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.labeled import csv_list
from ppvit_jax.data.labeled.examples import Columns
from ppvit_jax.data.labeled.loading import loader
from ppvit_jax.errors import UserError

load = loader("csv")


def open_list(path: Path, *, labeled: bool = True, **columns: str):
    return csv_list.open_list(path, Columns(**columns), labeled=labeled)


@pytest.mark.parametrize("in_memory", [True, False, "auto"])
def test_a_list_is_the_data_set_of_its_folder(tmp_path, in_memory):
    rows = write_folder(tmp_path)
    file = write_csv(
        tmp_path / "list.csv", [(path, name, split) for split, name, path in rows], ("path", "label", "split")
    )
    expected = image_folder.load(settings(tmp_path))
    loaded = load(settings(file, in_memory=in_memory))
    assert content_of(loaded) == content_of(expected)
    assert (loaded.digest, loaded.train_digest) == (expected.digest, expected.train_digest)
    assert loaded.resize == "squash" and loaded.train.image_shape == (4, 4, 3)


def test_a_list_without_splits_is_split_as_its_folder(tmp_path, capsys):
    rows = write_folder(tmp_path, [""], count=9)
    file = write_csv(tmp_path / "list.csv", [(path, name) for _, name, path in rows])
    loaded = load(settings(file, seed=3))
    assert content_of(loaded) == content_of(image_folder.load(settings(tmp_path, seed=3)))
    assert content_of(loaded) != content_of(load(settings(file, seed=4)))
    assert "test images: 4, a random share of 0.25 of each class (data.test_fraction)\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("split", "changes", "message"),
    [
        ("", {"train_split": "fold0"}, r"has no split 'fold0': choose among none, for it has no splits"),
        ("train", {"train_split": "fold0"}, r"has no split 'fold0': choose among train in data\.train_split"),
        ("train", {"test_split": "fold1"}, r"has no split 'fold1': choose among train in data\.test_split"),
        ("test", {}, r"has no split 'train': choose among test in data\.train_split"),
    ],
)
def test_a_split_that_is_named_is_not_drawn(tmp_path, split, changes, message):
    rows = write_folder(tmp_path, [""])
    file = write_csv(tmp_path / "list.csv", [(path, name, split) for _, name, path in rows], ("path", "label", "split"))
    if not split:
        file = write_csv(tmp_path / "list.csv", [(path, name) for _, name, path in rows])
    with pytest.raises(UserError, match=message):
        load(settings(file, **changes))


def test_a_folder_of_lists_has_a_split_for_each(tmp_path):
    rows = write_folder(tmp_path)
    for split in ("train", "test"):
        write_csv(tmp_path / f"my_{split}.csv", [(path, name) for part, name, path in rows if part == split])
    assert content_of(load(settings(tmp_path))) == content_of(image_folder.load(settings(tmp_path)))


def test_columns_have_usual_names_or_those_that_are_given(tmp_path):
    (row,) = write_images(tmp_path, ["a.png"])
    file = write_csv(tmp_path / "list.csv", [("x", row, "cat", "dog")], ("id", "File_Name", "animal", "label"))
    assert open_list(file).class_names == ("dog",)
    assert open_list(file, label="animal").class_names == ("cat",)
    with pytest.raises(UserError, match=r"has no column 'kind' among 'id', .*: name one in data\.label_column"):
        open_list(file, label="kind")
    file = write_csv(tmp_path / "list.csv", [(row, row, "a")], ("path", "file", "label"))
    with pytest.raises(UserError, match=r"has the columns 'path' and 'file' among .*: name one in data\.image_column"):
        open_list(file)


def test_paths_may_be_absolute_or_lead_outside(tmp_path):
    write_images(tmp_path / "images", ["a.png", "b.png", "c.png", "d.png"])
    (tmp_path / "lists").mkdir()
    lines = [("../images/a.png", 0), (tmp_path / "images" / "b.png", 0), ("../images/c.png", 1), ("../images/d.png", 1)]
    loaded = load(settings(write_csv(tmp_path / "lists" / "list.csv", lines)))
    assert loaded.class_names == ("0", "1") and len(loaded.train) == len(loaded.test) == 2
    with pytest.raises(
        UserError, match=r"line 3 of .* names .*/b\.png, as line 2 of .* does: list an image once, in one split"
    ):
        load(settings(write_csv(tmp_path / "lists" / "list.csv", [lines[1], ("../lists/../images/b.png", 1)])))


REFUSED = {
    "empty": ("", "is empty: write a first line such as path,label"),
    "header alone": ("path,label\n", "lists no images"),
    "without a header": ("a.png,cat\n", "has no column of the name path or .* among 'a.png', 'cat'"),
    "no label column": ("path\na.png\n", "has no column of the name label or .* among 'path'"),
    "missing file": (
        "path,label\na.png,x\n\nc.png,y\n",
        r"line 4 of .*list\.csv names c\.png, but there is no file .*/c\.png: correct",
    ),
    "a folder": ("path,label\n.,x\n", r"line 2 of .* names \., but there is no file"),
    "a NUL": ("path,label\na\0.png,x\n", r"line 2"),
    "no label": ("path,label\na.png,x\nb.png, \n", r"b\.png in line 3 of .*list\.csv has no label: add it"),
    "no path": ("path,label\n,x\n", r"line 2 of .* has no 'path'"),
    "no split": ("path,label,split\na.png,x,train\nb.png,y,\n", r"line 3 of .* has no 'split'"),
    "twice": (
        "path,label,split\na.png,x,train\n./a.png,x,test\n",
        r"line 3 of .* names \./a\.png, as line 2 of ",
    ),
    "a comma": ("path,label\na.png,x,y\n", r"line 2 of .* has 3 values, but the first line names 2 columns"),
    "an open quote": ('path,label\na.png,"x\n', r"cannot read .*list\.csv after line .*: correct it"),
    "Latin-1": ("path,label\na.png,\u00e9\n".encode("latin-1"), "is not text in UTF-8"),
    "one class": ("path,label\na.png,x\nb.png,x\n", "has a single class, x: give images of two"),
    "one image": ("path,label\na.png,x\nb.png,y\n", "the class 'x' has 1 image, but a split needs 2"),
    "no test": (
        "path,label,split\na.png,x,train\nb.png,y,dev\n",
        r"has no split 'test': choose among train, dev in data\.test_split",
    ),
    "a class of the test alone": (
        "path,label,split\na.png,x,train\nb.png,y,test\n",
        r"the test image .*b\.png has the class 'y', which no training image has",
    ),
    "not an image": ("path,label,split\na.png,x,train\nd.png,y,train\nb.png,y,test\n", "d.png is not an image"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_lists_that_are_refused(tmp_path, case):
    text, message = REFUSED[case]
    write_images(tmp_path, ["a.png", "b.png"])
    (tmp_path / "d.png").write_text("text")
    file = tmp_path / "list.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as caught:
        load(settings(file, in_memory=True))
    assert "\n" not in str(caught.value)


def test_labels_are_optional_for_images_to_encrypt(tmp_path):
    write_images(tmp_path, ["a.png", "b.png"])
    for header, lines in ((["path"], [["a.png"], ["b.png"]]), (["path", "label"], [["a.png", ""], ["b.png", ""]])):
        collection = open_list(write_csv(tmp_path / "list.csv", lines, header), labeled=False)
        assert collection.splits[0].labels is None and collection.class_names == () and collection.splits[0].count == 2
    with pytest.raises(UserError, match=r"b\.png in line 3 of .* has no label"):
        open_list(write_csv(tmp_path / "list.csv", [("a.png", "x"), ("b.png", "")]), labeled=False)


def test_images_of_a_manifest_are_compared_with_it(tmp_path):
    rows = write_folder(tmp_path / "encrypted", [""], count=2)
    hashes = [(path, hashlib.sha256((tmp_path / "encrypted" / path).read_bytes()).hexdigest()) for *_, path in rows]
    manifests.write(tmp_path / "encrypted", manifests.Header("none", None, 6, 2, ""), hashes, None)
    file = write_csv(tmp_path / "list.csv", [(f"encrypted/{path}", name) for _, name, path in rows])
    loaded = load(settings(file))
    assert loaded.manifest and loaded.manifest.folder == tmp_path / "encrypted" and loaded.resize == ""
    write_images(tmp_path / "encrypted", [rows[0][2]], seed=1)
    with pytest.raises(UserError, match="is not the file that the manifest describes"):
        load(settings(file, in_memory=True))
    write_images(tmp_path, ["outside.png"])
    file = write_csv(tmp_path / "list.csv", [(f"encrypted/{rows[0][2]}", "a"), ("outside.png", "b")])
    with pytest.raises(UserError, match="make a list of the images of one folder"):
        load(settings(file))


def test_test_images_that_are_training_images_get_a_warning(tmp_path, capsys):
    write_images(tmp_path, ["a.png", "b.png"])
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes())
    lines = [("a.png", 0, "train"), ("b.png", 1, "train"), ("c.png", 0, "test")]
    load(settings(write_csv(tmp_path / "list.csv", lines, ("path", "label", "split"))))
    assert "warning: 1 test images are training images too, such as " in capsys.readouterr().err


def test_the_configuration_names_the_columns(tmp_path):
    from ppvit_jax.config import default_config

    write_images(tmp_path, [f"{number}.png" for number in range(8)])
    file = write_csv(tmp_path / "list.csv", [(f"{n}.png", n, n % 2) for n in range(8)], ("path", "label", "parity"))
    fields = default_config().data
    fields.source, fields.dir, fields.label_column = "csv", str(file), "parity"
    assert data.load(fields, 4).class_names == ("0", "1")


@pytest.fixture(scope="module")
def two_images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    write_images(folder, ["a.png", "b.png"])
    return folder


@examples_of(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet='ab.png,/"\n\r\0é; ', max_size=40))
@example('a.png,"x\ny"\nb.png,z')
def test_any_text_is_read_or_refused_in_one_line(two_images, text):
    file = two_images / "list.csv"
    file.write_bytes(f"path,label\n{text}".encode())
    try:
        collection = open_list(file)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        (examples,) = collection.splits
        assert examples.labels is not None and 1 <= examples.count == len(examples.labels) <= 2
        assert np.unique(examples.labels).tolist() == list(range(len(collection.class_names)))
