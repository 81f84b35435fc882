"""Images with any number of labels, in each format."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.images import write_images
from helpers.labeled import settings, write_csv, write_parquet, write_tar

from ppvit_jax.data.labeled.loading import loader
from ppvit_jax.errors import UserError

# Each image shows some of three classes, the last one none.
LABELS = [["sea", "sky"], ["sky"], ["hill"], ["hill", "sky"], ["sea"], []]
MARKS = [[0, 1, 1], [0, 0, 1], [1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 0, 0]]
NAMES = ["hill", "sea", "sky"]


@pytest.fixture
def images(tmp_path):
    write_images(tmp_path, [f"{number}.png" for number in range(6)])
    return [(tmp_path / f"{number}.png").read_bytes() for number in range(6)]


def marks_of(name, path):
    loaded = loader(name)(settings(path, train_split="train", test_split="train"))
    assert loaded.class_names == tuple(NAMES) and loaded.train.labels.dtype == np.uint8
    assert len(loaded.digest) == 64
    return loaded.train.labels.tolist()


def test_a_list_has_them_between_semicolons(tmp_path, images):
    lines = [(f"{number}.png", " ; ".join(labels), "train") for number, labels in enumerate(LABELS)]
    assert marks_of("csv", write_csv(tmp_path / "list.csv", lines, ("path", "labels", "split"))) == MARKS
    lines = [(f"{number}.png", f"{labels[0]};" if labels else ";", "train") for number, labels in enumerate(LABELS)]
    marks = marks_of("csv", write_csv(tmp_path / "list.csv", lines, ("path", "label", "split")))
    assert np.sum(marks, axis=1).tolist() == [1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("numbers", [False, True])
def test_a_column_of_parquet_has_lists(tmp_path, images, numbers):
    labels = [[NAMES.index(name) for name in names] for names in LABELS] if numbers else LABELS
    file = write_parquet(tmp_path / "train.parquet", images, labels, class_names=NAMES if numbers else ())
    assert marks_of("parquet", file) == MARKS


def test_a_sample_of_a_tar_file_has_a_list(tmp_path, images):
    members = [
        (f"{number}.{ending}", content)
        for number, names in enumerate(LABELS)
        for ending, content in (("png", images[number]), ("json", json.dumps({"label": names}).encode()))
    ]
    assert marks_of("webdataset", write_tar(tmp_path / "train.tar", members)) == MARKS


def test_they_are_drawn_together_and_belong_to_the_classes_of_training(tmp_path, images, capsys):
    lines = [(f"{number}.png", ";".join(labels)) for number, labels in enumerate(LABELS)]
    loaded = loader("csv")(settings(write_csv(tmp_path / "list.csv", lines), test_fraction=0.34))
    assert (len(loaded.train), len(loaded.test)) == (4, 2)
    assert "a random share of 0.34 of the images (data.test_fraction)" in capsys.readouterr().err
    splits = ["test", *["train"] * 5]
    lines = [(*line, split) for line, split in zip(lines, splits, strict=True)]
    lines[0] = ("0.png", "moon;sky", "test")
    with pytest.raises(UserError, match=r"0\.png has the class 'moon', which no training image has"):
        loader("csv")(settings(write_csv(tmp_path / "list.csv", lines, ("path", "label", "split"))))
    lines[0] = ("0.png", "sky", "test")
    lines[4] = ("4.png", "sky", "train")
    loaded = loader("csv")(settings(write_csv(tmp_path / "list.csv", lines, ("path", "label", "split"))))
    assert loaded.class_names == ("hill", "sky") and loaded.test.labels.tolist() == [[0, 1]]


def test_no_label_at_all_is_refused(tmp_path, images):
    file = write_csv(tmp_path / "list.csv", [(f"{number}.png", ";") for number in range(3)])
    with pytest.raises(UserError, match="no image has a label: fill in the labels"):
        loader("csv")(settings(file))
