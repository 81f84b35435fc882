"""Files of a data set by their splits, patterns of files, and names in compact lists."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppvit_jax.data.labeled.class_list import read_class_names
from ppvit_jax.data.labeled.names import Names
from ppvit_jax.data.labeled.shards import expand_braces, list_shards
from ppvit_jax.errors import UserError

LAYOUTS = {
    "hub": (
        ["data/train-00000-of-00002.x", "data/train-00001-of-00002.x", "data/test-00000-of-00001.x"],
        {"train": 2, "test": 1},
    ),
    "hub with hashes": (
        ["train-00000-of-00001-9f3a.x", "validation-00000-of-00001-77.x"],
        {"train": 1, "validation": 1},
    ),
    "other splits": (["fold_a-00000-of-00001.x", "fold_b-00000-of-00001.x"], {"fold_a": 1, "fold_b": 1}),
    "folders": (["plain/train/0000.x", "plain/train/0001.x", "plain/Test/0000.x"], {"train": 2, "Test": 1}),
    "names": (["cifar-train-000000.x", "cifar-train-000001.x", "cifar-val-000000.x"], {"train": 2, "val": 1}),
    "numbers behind names": (["train0.x", "train1.x", "test0.x"], {"train": 2, "test": 1}),
    "no splits": (["000000.x", "000001.x"], {"": 2}),
    "one series": (["data-00000-of-00002.x", "data-00001-of-00002.x"], {"": 2}),
    "hidden files": (["a.x", ".b.x", ".cache/c.x"], {"": 1}),
}


def write(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_belong_to_the_splits_that_their_names_say(tmp_path, layout):
    names, expected = LAYOUTS[layout]
    write(tmp_path, [*names, "README.md"])
    root, splits = list_shards(tmp_path, ".x")
    assert root == tmp_path and {split: len(files) for split, files in splits.items()} == expected
    assert all(files == sorted(files) for files in splits.values())


REFUSED = {
    "no files": ([], r"has no \.x files: give the folder that holds them"),
    "a split and none": (
        ["train.x", "more.x"],
        r"more\.x belongs to no split, but other files do: name",
    ),
    "two data sets": (["one/train/0.x", "two/train/0.x"], r"has \.x files of several data sets, in one and two: give"),
    "a gap": (["train-00000-of-00003.x", "train-00002-of-00003.x"], "train-00001-of-00003 is missing: get it again"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_folders_that_are_refused(tmp_path, case):
    names, message = REFUSED[case]
    write(tmp_path, names)
    with pytest.raises(UserError, match=message):
        list_shards(tmp_path, ".x")


def test_a_pattern_takes_the_files_that_it_names(tmp_path, monkeypatch):
    write(tmp_path, ["a/train-00.x", "a/train-01.x", "b/train-00.x", "train-00000-of-00009.x"])
    root, splits = list_shards(tmp_path / "a" / "train-{00..01}.x", ".x")
    assert root == tmp_path / "a" and len(splits[next(iter(splits))]) == 2
    _, splits = list_shards(tmp_path / "{a,b}" / "train-00.x", ".x")
    assert [file.parent.name for file in splits["train"]] == ["a", "b"]
    monkeypatch.chdir(tmp_path)
    root, splits = list_shards(Path("{a,b}", "train-00.x"), ".x")
    assert root == Path() and splits == {"train": [Path("a/train-00.x"), Path("b/train-00.x")]}
    # A file that is named by itself is wanted without its series.
    assert list_shards(tmp_path / "train-00000-of-00009.x", ".x")[1].keys() == {"train"}
    with pytest.raises(UserError, match=r"there is no .*train-02\.x: give a folder, a \.x file, or a pattern"):
        list_shards(tmp_path / "a" / "train-{00..02}.x", ".x")


@given(st.integers(0, 200), st.integers(0, 30), st.integers(1, 6))
def test_a_range_counts_with_its_zeros(first, more, width):
    texts = expand_braces(f"a-{{{first:0{width}}..{first + more:0{width}}}}.x")
    assert texts == [f"a-{number:0{width}}.x" for number in range(first, first + more + 1)]


@given(st.lists(st.text(alphabet="ab-1", max_size=3), min_size=1, max_size=4), st.text(alphabet="xyz./", max_size=5))
def test_choices_are_taken_in_order(choices, rest):
    assert expand_braces(f"{{{','.join(choices)}}}{rest}") == [f"{choice}{rest}" for choice in choices]
    assert expand_braces(rest) == [rest]


@pytest.mark.parametrize("pattern", ["{9..0}", "{0..999999999}"])
def test_ranges_that_are_refused(pattern):
    with pytest.raises(UserError, match="is empty or too long: count up"):
        expand_braces(pattern)


@pytest.mark.slow
@given(st.lists(st.text(st.characters(codec="utf-8")) | st.just("\udcff")))
def test_names_are_kept(texts):
    names = Names()
    for text in texts:
        names.append(text)
    assert [names[index] for index in range(len(names))] == texts
    with pytest.raises(IndexError):
        names[len(texts)]


GOOD_LISTS = {
    "lines": ("classes.txt", "ant\nsea lion\n\n"),
    "a byte order mark": ("classes.txt", "\ufeffant\r\nsea lion"),
    "a list": ("classes.json", '["ant", "sea lion"]'),
    "numbers of names": ("classes.json", '{"sea lion": 1, "ant": 0}'),
    "names of numbers": ("classes.json", '{"1": "sea lion", "0": "ant"}'),
}


@pytest.mark.parametrize("case", GOOD_LISTS)
def test_lists_of_class_names(tmp_path, case):
    assert read_class_names(tmp_path) == ()
    name, text = GOOD_LISTS[case]
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert read_class_names(tmp_path) == ("ant", "sea lion")


BAD_LISTS = {
    "empty": ("classes.txt", "\n", "write one name in each line"),
    "an empty line": ("classes.txt", "ant\n\nbee\n", "write one name in each line"),
    "twice": ("classes.txt", "ant\nbee\nant\n", "has two classes of the name 'ant': rename one"),
    "broken": ("classes.json", "[", "write a list of names, or an object"),
    "a gap": ("classes.json", '{"ant": 0, "bee": 2}', "write a list of names, or an object"),
    "numbers": ("classes.json", "[1, 2]", "write a list of names, or an object"),
    "deep": ("classes.json", "[" * 99_999, "write a list of names, or an object"),
    "mixed": ("classes.json", '{"ant": [0]}', "write a list of names, or an object"),
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_lists_of_class_names_that_are_refused(tmp_path, case):
    name, text, message = BAD_LISTS[case]
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_class_names(tmp_path)
