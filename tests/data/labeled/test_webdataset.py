"""Data source "webdataset": samples in tar files, and the tar files that are refused."""

from __future__ import annotations

import json
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from helpers.images import write_images
from helpers.labeled import content_of, settings, write_folder, write_tar
from hypothesis import HealthCheck, given
from hypothesis import settings as examples_of
from hypothesis import strategies as st

from ppvit_jax.data import image_folder
from ppvit_jax.data.labeled import webdataset
from ppvit_jax.data.labeled.examples import Columns
from ppvit_jax.data.labeled.loading import loader
from ppvit_jax.errors import UserError

load = loader("webdataset")
NAMES = ("ant", "bee")


def open_shards(path: Path, *, labeled: bool = True, field: str = ""):
    return webdataset.open_shards(path, Columns(label=field), labeled=labeled)


@pytest.fixture(scope="module")
def png(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("png")
    write_images(folder, ["a.png"])
    return (folder / "a.png").read_bytes()


def write_shards(folder: Path, images: Path, rows, form: str) -> None:
    """Writes the images of a folder as two tar files for each split."""
    for split in ("train", "test"):
        members: list[list[tuple[str, bytes]]] = [[], []]
        chosen = [row for row in rows if row[0] == split]
        for number, (_, name, path) in enumerate(chosen):
            label = {
                "cls": ("cls", str(NAMES.index(name)).encode()),
                "cls names": ("cls", name.encode()),
                "json": ("json", json.dumps({"label": NAMES.index(name), "width": 6}).encode()),
                "json names": ("json", json.dumps({"label": name}).encode()),
            }[form]
            members[number * 2 // len(chosen)] += [
                (f"./{path.removesuffix('.png')}.{label[0]}", label[1]),
                (f"./{path.removesuffix('.png')}.PNG", (images / path).read_bytes()),
                (f"./{path.removesuffix('.png')}.txt", b"a caption"),
            ]
        for number in range(2):
            write_tar(folder / f"insects-{split}-{number:06d}.tar", members[number])
    if "names" not in form:
        (folder / "classes.txt").write_text("ant\nbee\n")


@pytest.mark.parametrize("form", ["cls", "cls names", "json", "json names"])
@pytest.mark.parametrize("in_memory", [True, "auto"])
def test_tar_files_are_the_data_set_of_their_folder(tmp_path, form, in_memory, capsys):
    rows = write_folder(tmp_path / "images")
    write_shards(tmp_path / "shards", tmp_path / "images", rows, form)
    loaded = load(settings(tmp_path / "shards", in_memory=in_memory))
    assert content_of(loaded) == content_of(image_folder.load(settings(tmp_path / "images")))
    assert loaded.digest == load(settings(tmp_path / "shards")).digest != loaded.train_digest
    assert "training images: train; test images: test\n" in capsys.readouterr().err


def test_a_pattern_names_some_of_the_files(tmp_path):
    rows = write_folder(tmp_path / "images")
    write_shards(tmp_path, tmp_path / "images", rows, "cls names")
    collection = open_shards(tmp_path / "insects-{train,test}-{000000..000001}.tar")
    assert [(part.split, part.count) for part in collection.splits] == [("train", 8), ("test", 8)]
    assert collection.splits[1].name(3) == "insects-test-000000.tar/./test/ant/3.PNG"
    (part,) = open_shards(tmp_path / "insects-train-000001.tar").splits
    assert part.count == 4
    with pytest.raises(UserError, match=r"there is no .*insects-train-000002\.tar"):
        open_shards(tmp_path / "insects-train-{000000..000002}.tar")


def test_numbers_without_names_count_from_0_to_the_largest(tmp_path, png):
    write_tar(
        tmp_path / "a.tar",
        [(f"{n}.{end}", content) for n in (0, 3) for end, content in (("jpg", png), ("cls", str(n).encode()))],
    )
    collection = open_shards(tmp_path / "a.tar")
    assert collection.class_names == ("0", "1", "2", "3") and collection.declared


def test_the_field_of_the_label_can_be_named(tmp_path, png):
    file = write_tar(tmp_path / "a.tar", [("1.jpg", png), ("1.json", b'{"label": 1, "animal": "bee"}')])
    assert open_shards(file, field="animal").class_names == ("bee",)
    with pytest.raises(UserError, match="the sample 1 has no label: add it"):
        open_shards(file, field="plant")


def test_other_files_and_folders_are_left_out(tmp_path, png):
    file = tmp_path / "a.tar"
    write_tar(
        file,
        [
            ("README.md", b""),
            ("a/._1.jpg", b"x"),
            ("__meta__/2.jpg", b"x"),
            ("a/1.jpg", png),
            ("a/1.seg.png", b"x"),
            ("a/1.cls", b"0"),
        ],
    )
    (part,) = open_shards(file).splits
    assert part.count == 1 and part.read(0) == png and list(part.scan(np.array([0]))) == [png]


REFUSED = {
    "a path above": ([("../1.jpg", b"x"), ("../1.cls", b"0")], r"has '\.\./1\.jpg', a path outside the file: do not"),
    "an absolute path": ([("/etc/1.jpg", b"x")], r"has '/etc/1\.jpg', a path outside the file: do not trust it"),
    "a hidden path above": ([("a/../../._1.jpg", b"x")], "a path outside the file"),
    "no label": ([("1.jpg", b"x"), ("2.jpg", b"x"), ("2.cls", b"0")], "the sample 1 has no label: add it"),
    "an empty label": ([("1.jpg", b"x"), ("1.cls", b" ")], "the sample 1 has no label"),
    "two images": (
        [("1.jpg", b"x"), ("1.png", b"x"), ("1.cls", b"0")],
        r"1 has two images, 1\.jpg and 1\.png: give each",
    ),
    "two labels": ([("1.jpg", b"x"), ("1.cls", b"0"), ("1.cls", b"1")], r"the sample 1 has two files \.cls"),
    "apart": ([("1.cls", b"0"), ("2.cls", b"0"), ("1.jpg", b"x")], r"the sample 1 has no image, but \.cls alone: pack"),
    "two dots": ([("1.v2.jpg", b"x"), ("1.cls", b"0")], r"the sample 1 has no image, but \.cls, \.v2\.jpg alone"),
    "another image": ([("1.heic", b"x")], r"the sample 1 has no image, but \.heic alone"),
    "a negative label": (
        [("1.jpg", b"x"), ("1.cls", b"-1")],
        "has the label -1, which stands for no label",
    ),
    "a large label": ([("1.jpg", b"x"), ("1.cls", b"7")], "has the label 7, but the 2 class names are numbered from 0"),
    "no such name": (
        [("1.jpg", b"x"), ("1.cls", b"cat")],
        "the label 'cat', but the list of 2 class names lacks it",
    ),
    "names and numbers": (
        [("1.jpg", b"x"), ("1.cls", b"bee"), ("2.jpg", b"x"), ("2.cls", b"0")],
        "the sample 2 has the label 0, but others are names: write all alike",
    ),
    "broken JSON": ([("1.jpg", b"x"), ("1.json", b'{"label"')], "the sample 1 has a label that cannot be read"),
    "deep JSON": ([("1.jpg", b"x"), ("1.json", b"[" * 99_999)], "the sample 1 has a label that cannot be read"),
    "a label that is none": ([("1.jpg", b"x"), ("1.json", b'{"label": 1.5}')], "the sample 1 has the label '1.5'"),
    "a binary label": ([("1.jpg", b"x"), ("1.cls", b"\xff")], "the sample 1 has a label that cannot be read"),
    "a huge label": ([("1.jpg", b"x"), ("1.cls", b"0" * 2_000_000)], "has a label of 2,000,000 bytes"),
    "text alone": ([("README.md", b"x")], "has no samples"),
    "nothing": ([], "has no samples"),
    "not an image": (
        [(f"{n}.{end}", b"01"[n % 2 :][:1]) for n in range(4) for end in ("jpg", "cls")],
        r"a\.tar/\d\.jpg is not an image that can be read",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_tar_files_that_are_refused(tmp_path, case):
    members, message = REFUSED[case]
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(UserError, match=message) as caught:
        load(settings(tmp_path / "a.tar", in_memory=True))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.SYMTYPE, "a link to /etc/passwd: pack the files themselves"),
        (tarfile.LNKTYPE, "a link to /etc/passwd: pack the files themselves"),
        (tarfile.CHRTYPE, "which is no usual file"),
        (tarfile.FIFOTYPE, "which is no usual file"),
    ],
)
def test_links_and_devices_are_refused(tmp_path, kind, message):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("1.jpg")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(UserError, match=message):
        open_shards(tmp_path / "a.tar")


DAMAGED = {
    "empty": (lambda content: b"", "empty file"),
    "cut within an image": (lambda content: content[:1000], "truncated|unexpected end"),
    "cut behind a file": (lambda content: content[:1024], "is truncated or damaged at byte 1,024"),
    "a damaged header": (lambda content: content[:1030] + b"?" + content[1031:], "damaged at byte 1,024"),
    "two in one": (lambda content: content + content, "has data behind its end"),
    "compressed": (lambda content: __import__("gzip").compress(content), "not compressed"),
    "text": (lambda content: b"text", "give a complete tar file"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_refused(tmp_path, case):
    damage, message = DAMAGED[case]
    file = write_tar(tmp_path / "a.tar", [("1.jpg", b"x" * 512), ("1.cls", b"0"), ("2.jpg", b"x"), ("2.cls", b"1")])
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=message) as caught:
        open_shards(file)
    assert "\n" not in str(caught.value)


@examples_of(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_changed_byte_never_ends_in_a_traceback(tmp_path, data):
    file = tmp_path / "a.tar"
    if not file.exists():
        write_tar(file, [("1.jpg", b"x" * 512), ("1.cls", b"0"), ("2.jpg", b"x"), ("2.cls", b"1")])
        (tmp_path / "copy").write_bytes(file.read_bytes())
    content = bytearray((tmp_path / "copy").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 3000))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    try:
        collection = open_shards(file)
        (part,) = collection.splits
        list(part.scan(np.arange(part.count)))
    except UserError as error:
        assert len(str(error).splitlines()) == 1


def test_labels_are_optional_for_images_to_encrypt(tmp_path, png):
    file = write_tar(tmp_path / "a.tar", [("1.jpg", png), ("2.jpg", png)])
    collection = open_shards(file, labeled=False)
    assert collection.splits[0].labels is None and collection.splits[0].count == 2
    write_tar(file, [("1.jpg", png), ("2.jpg", png), ("2.cls", b"1")])
    with pytest.raises(UserError, match="the sample 1 has no label: add it"):
        open_shards(file, labeled=False)


def test_memory_does_not_grow_with_the_images(tmp_path):
    """A tar file of 64 MB is opened and read, image by image, in a fiftieth of that."""
    size, count = 2**18, 256
    content = np.random.default_rng(0).bytes(size)
    members = ((f"{n:06d}.{end}", part) for n in range(count) for end, part in (("jpg", content), ("cls", b"1")))
    file = write_tar(tmp_path / "a.tar", members)
    assert file.stat().st_size > size * count
    tracemalloc.start()
    try:
        (part,) = open_shards(file).splits
        assert sum(map(len, part.scan(np.arange(count)))) == size * count
        assert len(part.read(count - 1)) == size
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size * count / 50
