"""Content of tfds data sets: their digest, and slices of splits that would separate copies."""

from __future__ import annotations

import hashlib
import shutil

import pytest
from helpers.toy import build

from ppvit_jax.data import embedded
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.identity import content_identity, former_identity
from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.listing import open_tfds
from ppvit_jax.data.settings import DataSettings
from ppvit_jax.data.tfds_content import check_slices, digest_records
from ppvit_jax.errors import UserError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return build(tmp_path_factory.mktemp("prepared"), fixed=True)


def test_the_digest_is_that_of_the_records(prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "toy" / "1.0.0")
    reader = ImageReader(8, "squash", 1000)
    first = digest_records(folder)
    identities = [(content_identity(images), former_identity(images)) for images in [open_tfds(folder, (), reader)]]
    assert digest_records(folder) == first == digest_records(prepared)
    names = [path.name for path in folder.iterdir()]
    hashes = [(name, hashlib.sha256((folder / name).read_bytes()).hexdigest()) for name in names]
    manifests.write(folder, manifests.Header("none", None, 8, 4, ""), hashes, None)
    assert digest_records(folder, manifests.read(folder)) == first
    (folder / "manifest.json").unlink()
    # A data set that was prepared anew may have the same numbers of images.
    file = next(folder.glob("*train*array_record*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert digest_records(folder) != first
    images = open_tfds(folder, (), reader)
    assert content_identity(images) != identities[0][0] and former_identity(images) == identities[0][1]


@pytest.mark.parametrize("split", ["train", "train[:50%]", "train[30:]", "test[:3]", "train[150:300]+test"])
def test_slices_between_images_are_fine(prepared, split):
    check_slices(prepared, (split, "test"), 10)


@pytest.mark.parametrize("split", ["train[:31%]", "train[155:]", "test+train[:7]"])
def test_slices_between_copies_are_refused(prepared, split):
    with pytest.raises(
        UserError, match=r"separates the 10 augmented copies .*: give multiples of 10, such as train\[:"
    ):
        check_slices(prepared, ("test", split), 10)


def test_the_digest_of_an_embedded_data_set_is_that_of_the_chosen_images():
    def digest(examples: int) -> str:
        return embedded.load(
            DataSettings(
                name="digits",
                dir="",
                train_split="train",
                test_split="test",
                test_fraction=0.2,
                resize="squash",
                max_pixels=1000,
                train_examples=examples,
                test_examples=10,
                in_memory=True,
                image_size=8,
                seed=0,
            )
        ).digest

    assert len(digest(20)) == 64 and digest(20) == digest(20) != digest(21)
