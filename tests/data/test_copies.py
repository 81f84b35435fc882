"""Augmented copies: their groups, and folders that do not say that they have copies."""

import pytest

from ppvit_jax.data.copies import find_copies, group_name, number_copies
from ppvit_jax.data.manifest import Header, Manifest


def manifest(origin: str, copies: int = 1):
    return Manifest(None, Header("none", None, 8, 4, origin, copies), {}, "", None)  # pyright: ignore


NEW, FORMER = "0" * 128, "0" * 64


@pytest.mark.parametrize(
    ("names", "header", "expected"),
    [
        (["a/x_0.png", "a/x_1.png"], manifest(NEW, 2), 2),
        (["a/00000000_0.png", "a/00000000_1.png"], manifest(NEW), 1),
        (["a/00000000_0.png", "a/00000000_1.png", "b/00000001_0.png", "b/00000001_1.png"], manifest(FORMER), 2),
        (["a/x_0.png", "a/x_1.png", "a/y_0.png", "a/y_1.png"], manifest(FORMER), 2),
        (["a/x_0.png", "a/x_1.png", "a/y_0.png"], manifest(FORMER), 1),
        (["a/x_0.png", "a/x_1.png"], manifest(FORMER), 1),
        (["a/00000007_0.png", "a/00000007_2.png"], None, 3),
        (["a/00000007_0.png", "a/x.png"], None, 1),
        (["a/20240131_0.png", "a/20240131_1.png"], None, 1),
        (["a/x_0.png", "a/x_1.png", "a/y_0.png", "a/y_1.png"], None, 1),
        ([], None, 1),
    ],
)
def test_the_manifest_or_the_names_tell_the_number_of_copies(names, header, expected):
    copies, assumed = find_copies(names, header)
    assert copies == expected
    assert bool(assumed) == (expected > 1 and (header is None or header.header.origin == FORMER))


def test_a_group_is_the_name_without_the_number_of_the_copy():
    names = ["a/x_0.png", "a/x_7.png", "a/x_8.png", "a/x_07.png", "b/x_0.png", "a.b/x", "x_1"]
    assert [group_name(name, 8) for name in names] == ["a/x", "a/x", "a/x_8", "a/x_07", "b/x", "a.b/x", "x"]
    assert [group_name(name, 1) for name in names[:2]] == ["a/x_0", "a/x_7"]


def test_new_names_keep_the_groups():
    names = ["a/x_0.png", "b/x_0.png", "a/x_1.png", "b/x_1.png", "c/y.png"]
    assert number_copies(names, 2) == ["00000000_0", "00000001_0", "00000000_1", "00000001_1", "00000002_0"]
