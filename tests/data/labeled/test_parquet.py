"""Data source "parquet": images and labels in Parquet files, and the files that are refused."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

import numpy as np
import pytest
from helpers.images import write_images
from helpers.labeled import content_of, settings, write_folder, write_parquet
from hypothesis import HealthCheck, given
from hypothesis import settings as examples_of
from hypothesis import strategies as st

from ppvit_jax import errors
from ppvit_jax.data import image_folder
from ppvit_jax.data.labeled import loading, parquet, row_groups
from ppvit_jax.data.labeled.examples import Collection, Columns
from ppvit_jax.data.labeled.loading import loader
from ppvit_jax.errors import UserError

pa = pytest.importorskip("pyarrow")
load = loader("parquet")
# They outlive the memory that is taken from them.
_POOLS = {rows: pa.proxy_memory_pool(pa.default_memory_pool()) for rows in (256, 2**14)}
NAMES = ("ant", "bee")


def open_files(path: Path, *, labeled: bool = True, **columns: str):
    return parquet.open_files(path, Columns(**columns), labeled=labeled)


def labels_of(collection: Collection) -> list[int]:
    labels = collection.splits[0].labels
    assert labels is not None
    return labels.tolist()


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("images")
    names = [f"{number}.png" for number in range(12)]
    write_images(folder, names)
    return [(folder / name).read_bytes() for name in names]


FORMS = {
    "hub": {"class_names": NAMES},
    "names": {},
    "plain": {"plain": True, "columns": ("jpg", "cls")},
    "CIFAR-10": {"class_names": NAMES, "columns": ("img", "kind"), "rows": 3},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("in_memory", [True, "auto"])
def test_files_are_the_data_set_of_their_folder(tmp_path, form, in_memory):
    rows = write_folder(tmp_path / "images")
    for split in ("train", "test"):
        chosen = [row for row in rows if row[0] == split]
        for part in range(2):
            half = chosen[part * 4 : part * 4 + 4]
            labels = [NAMES.index(name) if "class_names" in FORMS[form] else name for _, name, _ in half]
            contents = [(tmp_path / "images" / path).read_bytes() for *_, path in half]
            write_parquet(
                tmp_path / "hub" / "data" / f"{split}-0000{part}-of-00002.parquet", contents, labels, **FORMS[form]
            )
    loaded = load(settings(tmp_path / "hub", in_memory=in_memory))
    assert content_of(loaded) == content_of(image_folder.load(settings(tmp_path / "images")))
    assert len(loaded.digest) == 64 and loaded.digest == load(settings(tmp_path / "hub")).digest


def test_layouts_with_folders_for_splits(tmp_path, images):
    for split in ("train", "validation"):
        write_parquet(tmp_path / "default" / split / "0000.parquet", images[:2], [0, 1])
    assert [part.split for part in open_files(tmp_path).splits] == ["train", "validation"]
    assert len(load(settings(tmp_path)).test) == 2
    write_parquet(tmp_path / "other" / "train" / "0000.parquet", images[:2], [0, 1])
    with pytest.raises(UserError, match=r"has \.parquet files of several data sets, in default and other: give"):
        open_files(tmp_path)


def test_a_training_split_alone_is_split_at_random(tmp_path, images, capsys):
    write_parquet(tmp_path / "train-00000-of-00001.parquet", images, [0, 1] * 6, class_names=NAMES)
    loaded = load(settings(tmp_path))
    assert (len(loaded.train), len(loaded.test)) == (8, 4) and loaded.test.labels.tolist().count(0) == 2
    assert "test images: 4, a random share of 0.25 of each class" in capsys.readouterr().err


def test_a_file_of_a_series_is_missed(tmp_path, images):
    file = write_parquet(tmp_path / "train-00001-of-00003-0123abcd.parquet", images, [0] * 12)
    write_parquet(tmp_path / "train-00002-of-00003-0123abcd.parquet", images, [0] * 12)
    with pytest.raises(UserError, match=r"train-00000-of-00003 is missing: get it again"):
        open_files(tmp_path)
    assert open_files(file).splits[0].count == 12


@pytest.mark.parametrize("rows", [1, 5, 12])
@pytest.mark.parametrize("group_bytes", [1, 1500, 2**24])
def test_every_image_is_read_in_any_order(tmp_path, images, monkeypatch, rows, group_bytes):
    monkeypatch.setattr(row_groups, "GROUP_BYTES", group_bytes)
    monkeypatch.setattr(row_groups, "CACHE_BYTES", 3000)
    names = [write_parquet(tmp_path / f"train_{n}.parquet", images[n::2], [0] * 6, rows=rows).name for n in (0, 1)]
    (part,) = open_files(tmp_path).splits
    expected = [*images[0::2], *images[1::2]]
    order = np.random.default_rng(0).permutation(12).tolist()
    assert [part.read(index) for index in order] == [expected[index] for index in order]
    chosen = np.sort(order[:5])
    assert list(part.scan(chosen)) == [expected[index] for index in chosen]
    assert list(part.scan(np.arange(12))) == expected
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(part.read, [*range(12)] * 4)) == expected * 4
    assert part.name(7) == f"{names[1]}, row 1"


def test_decoded_images_are_kept_if_there_is_room_and_large_row_groups_warned_of(tmp_path, images, monkeypatch, capsys):
    write_parquet(tmp_path / "a.parquet", images, [0, 1] * 6)
    assert hasattr(load(settings(tmp_path)).train, "images")
    monkeypatch.setattr(loading, "IN_MEMORY_BYTES", 12 * 4 * 4 * 3)
    assert not hasattr(load(settings(tmp_path)).train, "images")
    monkeypatch.undo()
    assert "warning" not in capsys.readouterr().err
    monkeypatch.setattr(row_groups, "GROUP_BYTES", 1000)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1000)
    assert not hasattr(load(settings(tmp_path, in_memory=False)).train, "images")
    assert "warning: " in (text := capsys.readouterr().err) and "with row groups of 100 rows, or set config" in text
    assert hasattr(load(settings(tmp_path)).train, "images")
    assert "warning" not in capsys.readouterr().err


def other_columns(file: Path, **columns: object) -> Path:
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table(columns), file)
    return file


def test_other_schemas_are_refused_with_their_columns(tmp_path, images):
    file = tmp_path / "a.parquet"
    other_columns(file, text=["a"], label=[1])
    with pytest.raises(UserError, match=r"no column of images among its columns \(text: string, label: int64\): name"):
        open_files(file)
    other_columns(file, image=["a.png"], label=[1])
    with pytest.raises(UserError, match=r"no column of images among its columns \(image: string, label: int64\)"):
        open_files(file)
    other_columns(file, image=images, left=images, score=[0.5] * 12)
    with pytest.raises(UserError, match=r"no column of labels .*score: double\): name it in data\.label_column"):
        open_files(file)
    other_columns(file, left=images, right=images, label=[0] * 12)
    with pytest.raises(UserError, match=r"several columns of images, 'left' and 'right', .*data\.image_column"):
        open_files(file)
    assert open_files(file, image="right").splits[0].read(3) == images[3]
    with pytest.raises(UserError, match=r"no column 'middle' of images among"):
        open_files(file, image="middle")
    other_columns(file, image=images, label=[0] * 12, target=[1] * 12)
    with pytest.raises(UserError, match=r"several columns of labels, 'label' and 'target', among"):
        open_files(file)
    assert labels_of(open_files(file, label="target")) == [1] * 12


def test_files_of_two_data_sets_are_refused(tmp_path, images):
    write_parquet(tmp_path / "train_0.parquet", images, [0] * 12, class_names=NAMES)
    write_parquet(tmp_path / "train_1.parquet", images, ["a"] * 12)
    with pytest.raises(UserError, match=r"train_1\.parquet has label: string, but .*train_0\.parquet has label: int64"):
        open_files(tmp_path)
    write_parquet(tmp_path / "train_1.parquet", images, [0] * 12, class_names=("bee", "ant"))
    with pytest.raises(UserError, match=r"train_1\.parquet has other class names than"):
        open_files(tmp_path)
    write_parquet(tmp_path / "train_1.parquet", images, [0] * 12, columns=("image", "kind"))
    with pytest.raises(UserError, match=r"train_1\.parquet has only image, kind, but .* has label: int64"):
        open_files(tmp_path)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (-1, r"a\.parquet, row 1 has the label -1, which stands for no label: choose a labeled split"),
        (2, r"a\.parquet, row 1 has the label 2, but the 2 class names are numbered from 0 to 1"),
        (None, r"a\.parquet, row 1 has no label: add it"),
    ],
)
def test_labels_that_are_refused(tmp_path, images, label, message):
    file = write_parquet(tmp_path / "a.parquet", images[:3], [0, label, 1], class_names=NAMES)
    with pytest.raises(UserError, match=message):
        open_files(file)


def test_a_huge_label_without_names_is_refused(tmp_path, images):
    with pytest.raises(UserError, match="has the label 5000000000, but classes without names are numbered from 0"):
        open_files(write_parquet(tmp_path / "a.parquet", images[:1], [5_000_000_000]))


def test_categories_are_names(tmp_path, images):
    file = write_parquet(tmp_path / "a.parquet", images[:3], pa.array(["b", "a", "b"]).dictionary_encode())
    collection = open_files(file)
    assert collection.class_names == ("a", "b") and labels_of(collection) == [1, 0, 1]


def test_an_image_without_bytes_and_one_that_cannot_be_read(tmp_path, images):
    file = write_parquet(tmp_path / "a.parquet", [images[0], None, b"text"], [0, 1, 0])  # pyright: ignore
    (part,) = open_files(file).splits
    with pytest.raises(UserError, match=r"a\.parquet, row 1 has no bytes of an image"):
        part.read(1)
    write_parquet(file, [*images[:3], b"text"], [0, 1, 0, 1])
    with pytest.raises(UserError, match=r"a\.parquet, row 3 is not an image that can be read"):
        load(settings(file, in_memory=True))


DAMAGED = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "text": lambda content: b"text" * 100,
    "without its beginning": lambda content: content[len(content) // 2 :],
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_refused(tmp_path, images, case):
    file = write_parquet(tmp_path / "a.parquet", images, [0] * 12)
    file.write_bytes(DAMAGED[case](file.read_bytes()))
    with pytest.raises(
        UserError, match=r"cannot read .*a\.parquet .*: it is damaged, truncated or no Parquet"
    ) as caught:
        (part,) = open_files(file).splits
        list(part.scan(np.arange(part.count)))
    assert "\n" not in str(caught.value)


def test_no_rows_and_no_files(tmp_path):
    with pytest.raises(UserError, match=r"a\.parquet has no rows"):
        open_files(write_parquet(tmp_path / "a.parquet", [], pa.array([], pa.int64())))
    with pytest.raises(UserError, match=r"has no \.parquet files: give the folder"):
        (tmp_path / "folder").mkdir()
        open_files(tmp_path / "folder")


def test_without_pyarrow_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "is_installed", lambda module: False)
    with pytest.raises(UserError, match=r"reading Parquet needs pyarrow: run pip install 'ppvit-jax\[parquet\]'"):
        open_files(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [256, 2**14])
def test_memory_does_not_grow_with_the_images(tmp_path, monkeypatch, rows):
    """A file of 64 MB is read within 20 MB, in row groups of 1 MB and in a single one, whose pages have 4 MB."""
    size, count = 2**12, 2**14
    monkeypatch.setattr(row_groups, "GROUP_BYTES", 2**21)
    monkeypatch.setattr(row_groups, "CACHE_BYTES", 2**22)
    random = np.random.default_rng(0)
    contents = [random.bytes(size) for _ in range(count)]
    file = write_parquet(tmp_path / "a.parquet", contents, [0] * count, rows=rows)
    assert file.stat().st_size > size * count
    pool = _POOLS[rows]
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        (part,) = open_files(file).splits
        assert all(part.read(index) == contents[index] for index in range(0, count, 100))
        assert all(part.read(index) == contents[index] for index in random.permutation(count)[:20].tolist())
        assert sum(map(len, part.scan(np.arange(count)))) == size * count
    finally:
        pa.set_memory_pool(before)
    peak = pool.max_memory()
    assert peak is not None and 0 < peak < 20 * 2**20


@examples_of(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_changed_byte_never_ends_in_a_traceback(tmp_path, images, data):
    file, original = tmp_path / "a.parquet", tmp_path / "original"
    if not original.exists():
        original.write_bytes(write_parquet(file, images[:3], [0, 1, 0], class_names=NAMES).read_bytes())
    content = bytearray(original.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    try:
        (part,) = open_files(file).splits
        list(part.scan(np.arange(part.count)))
    except UserError as error:
        assert len(str(error).splitlines()) == 1
