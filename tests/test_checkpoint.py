import dataclasses
import hashlib
import json
import pickle
import zipfile
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from helpers.tiny import assert_same_tree, flatten, random_params, tiny_model
from helpers.transformers import tiny_transformer

from ppvit_jax import checkpoint, models
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.errors import UserError
from ppvit_jax.models import vit
from ppvit_jax.models.position_embedding import resize_position_embedding

CONFIG = tiny_model(representation_size=8)
SHARED = Path(__file__).parents[2] / "shared" / "data" / "vit_micro8_64_tiny_imagenet.npz"


def _arrays(config=CONFIG, seed=0):
    return flatten(random_params(config, seed))


def _save(path, arrays):
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path


def test_what_is_written_is_read_again(tmp_path):
    path, params = tmp_path / "model.npz", random_params(CONFIG)
    metadata = Metadata("ViT-B/16", 224, "bs+ps", "00112233")
    checkpoint.write(path, jax.tree.map(jax.numpy.asarray, params), metadata)
    arrays, found = checkpoint.read(path)
    assert found == metadata
    assert_same_tree(checkpoint.to_params(arrays, CONFIG, keep_head=True), params)


def test_other_loaders_see_nothing_but_googles_arrays(tmp_path):
    path = tmp_path / "model.npz"
    checkpoint.write(path, random_params(CONFIG), Metadata("ViT-B/16", 224, "bs", "00112233"))
    with np.load(path, allow_pickle=False) as file:
        assert_same_tree(dict(file), _arrays())
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.comment.removeprefix(b"ppvit "))["encryption"] == "bs"


def test_an_unfinished_file_never_takes_the_place_of_a_whole_one(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    checkpoint.write(path, random_params(CONFIG), Metadata())
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.write(path, random_params(CONFIG, 1), Metadata())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("prefix", ["opt/target/", "params/", "target/"])
def test_prefixes_of_training_states_are_taken_off_and_the_optimizer_left(tmp_path, prefix):
    arrays = {prefix + name: array for name, array in _arrays().items()}
    arrays |= {"opt/state/step": np.int32(5), "opt/state/param_states/cls/momentum": np.zeros((1, 1, 16))}
    found, metadata = checkpoint.read(_save(tmp_path / "state.npz", arrays))
    assert metadata == Metadata()
    assert_same_tree(checkpoint.to_params(found, CONFIG, keep_head=True), random_params(CONFIG))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_those_that_numpy_reads(tmp_path, save):
    """Arrays may have any layout, shape and dtype; skipped ones are not even opened."""
    random = np.random.default_rng(0)
    arrays = {
        "rows": random.standard_normal((3, 4, 5)).astype(np.float32),
        "columns": np.asfortranarray(random.standard_normal((3, 4, 5))),
        "scalar": np.float64(2.5),
        "empty": np.zeros((0, 3), np.int32),
        "bigendian": np.arange(5, dtype=">i8"),
        "head/kernel": np.zeros(2, np.float32),
    }
    save(tmp_path / "file.npz", **arrays)
    found, _ = checkpoint.read(tmp_path / "file.npz")
    with np.load(tmp_path / "file.npz") as file:
        assert_same_tree(found, dict(file))
    assert {name: array.dtype for name, array in found.items()} == {n: np.asarray(a).dtype for n, a in arrays.items()}
    assert checkpoint.read(tmp_path / "file.npz", skip=("head/", "e"))[0].keys() == arrays.keys() - {
        "head/kernel",
        "empty",
    }


def test_a_published_file_with_pre_logits_fits_a_model_without():
    without = tiny_model()
    params = checkpoint.to_params(_arrays(), without, keep_head=False)
    assert "pre_logits" not in params
    # The head follows the representation layer, which has another width here, so only a new head can fit.
    np.testing.assert_array_equal(params["head"]["kernel"], np.zeros((16, 3)))
    rest = {name: array for name, array in _arrays().items() if not name.startswith(("head", "pre_logits"))}
    assert {name: flatten(params)[name].tobytes() for name in rest} == {
        name: array.tobytes() for name, array in rest.items()
    }


def test_head_is_dropped_for_another_number_of_classes_or_kept():
    arrays = _arrays(tiny_model(num_classes=21))
    params = checkpoint.to_params(arrays, tiny_model(num_classes=5), keep_head=False)
    assert params["head"]["kernel"].shape == (16, 5)
    assert not params["head"]["kernel"].any() and not params["head"]["bias"].any()
    kept = checkpoint.to_params(arrays, tiny_model(num_classes=21), keep_head=True)
    np.testing.assert_array_equal(kept["head"]["kernel"], arrays["head/kernel"])
    with pytest.raises(UserError, match=r"head/kernel has \(16, 21\) and needs \(16, 5\)"):
        checkpoint.to_params(arrays, tiny_model(num_classes=5), keep_head=True)


def test_another_resolution_interpolates_the_position_embedding():
    arrays = _arrays(tiny_model(image_size=16))
    params = checkpoint.to_params(arrays, tiny_model(image_size=24), keep_head=True)
    expected = resize_position_embedding(arrays[vit.FAMILY.positions], 6, prefix_tokens=1)
    np.testing.assert_array_equal(params["Transformer"]["posembed_input"]["pos_embedding"], expected)


def test_bfloat16_which_numpy_stores_as_void_is_recovered(tmp_path):
    arrays = {name: array.astype(ml_dtypes.bfloat16) for name, array in _arrays().items()}
    found, _ = checkpoint.read(_save(tmp_path / "half.npz", arrays))
    params = checkpoint.to_params(found, CONFIG, keep_head=True)
    assert_same_tree(
        params, jax.tree.map(lambda a: a.astype(ml_dtypes.bfloat16).astype("float32"), random_params(CONFIG))
    )
    with jax.enable_x64(True):
        wide = checkpoint.to_params(found, tiny_model(representation_size=8, dtype="float64"), keep_head=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(wide)} == {np.dtype("float64")}


def test_everything_that_does_not_fit_is_in_one_line():
    arrays = _arrays()
    del arrays["cls"], arrays["Transformer/encoder_norm/scale"]
    arrays["Transformer/encoderblock_2/LayerNorm_0/bias"] = np.zeros(16, np.float32)
    arrays["embedding/kernel"] = np.zeros((8, 8, 3, 16), np.float32)
    arrays["Transformer/encoder_norm/bias"] = np.zeros((1, 16), np.float32)
    with pytest.raises(UserError) as caught:
        checkpoint.to_params(arrays, CONFIG, keep_head=True, where="weights.npz")
    assert str(caught.value) == (
        "weights.npz does not fit the model: missing Transformer/encoder_norm/scale, cls; "
        "extra Transformer/encoderblock_2/LayerNorm_0/bias; "
        "wrong shapes: Transformer/encoder_norm/bias has (1, 16) and needs (16,), "
        "embedding/kernel has (8, 8, 3, 16) and needs (4, 4, 3, 16)"
    )


def _damages():
    def truncate(share):
        return lambda content: content[: int(len(content) * share)]

    def flip(content):
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]

    return {
        "empty": lambda content: b"",
        "cut to a tenth": truncate(0.1),
        "cut by a hundredth": truncate(0.99),
        "one byte changed": flip,
        "a web page": lambda content: b"<html>403 Forbidden</html>",
        "a pickle": lambda content: pickle.dumps({"cls": 1}),
        "a single array": lambda content: b"\x93NUMPY" + content[6:],
    }


@pytest.mark.parametrize("damage", _damages())
def test_damaged_files_give_one_line(tmp_path, damage):
    path = tmp_path / "model.npz"
    checkpoint.write(path, random_params(CONFIG), Metadata())
    path.write_bytes(_damages()[damage](path.read_bytes()))
    with pytest.raises(UserError, match=r"not a \.npz file") as caught:
        checkpoint.read(path)
    assert str(caught.value).startswith(f"the checkpoint {path} is ") and "\n" not in str(caught.value)


def test_another_file_than_expected_is_named(tmp_path):
    path = tmp_path / "model.npz"
    checkpoint.write(path, random_params(CONFIG), Metadata())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    checkpoint.read(path, digest.upper())
    with pytest.raises(UserError, match=f"has the SHA-256 {digest} and not 00ff"):
        checkpoint.read(path, "00ff")


def test_pickled_objects_are_never_loaded(tmp_path):
    path = _save(tmp_path / "model.npz", {"cls": np.array([{"object": 1}], dtype=object)})
    with pytest.raises(UserError, match="holds pickled Python objects"):
        checkpoint.read(path)


@pytest.mark.parametrize("comment", [b"ppvit {", b"ppvit []", b"ppvit \xff"])
def test_damaged_metadata_is_not_taken_for_a_plain_model(tmp_path, comment):
    path = tmp_path / "model.npz"
    checkpoint.write(path, random_params(CONFIG), Metadata())
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = comment
    with pytest.raises(UserError, match="damaged"):
        checkpoint.read(path)


def test_a_comment_of_another_program_is_no_metadata(tmp_path):
    path = tmp_path / "model.npz"
    checkpoint.write(path, random_params(CONFIG), Metadata(encryption="bs"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"made by something else"
    assert checkpoint.read(path)[1] == Metadata()


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing.npz", "cannot read the checkpoint .*missing"), (".", "is a folder and not a .npz file: give a file in")],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        checkpoint.read(tmp_path / name)


def test_the_checkpoint_in_the_package_loads():
    arrays, metadata = checkpoint.read(checkpoint.resolve("embedded"))
    assert metadata == Metadata()
    config = models.parse_name("ViT-Micro/8", image_size=64, num_classes=200)
    params = checkpoint.to_params(arrays, config, keep_head=True)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 1_248_840


def test_the_checkpoint_in_the_package_is_the_one_that_was_trained():
    if not SHARED.exists():
        pytest.skip("the folder of the original checkpoint is not here")
    assert checkpoint.resolve("embedded").read_bytes() == SHARED.read_bytes()


def test_the_whole_record_is_kept():
    metadata = Metadata(
        "ViT-B/16",
        224,
        "bs+ps",
        "00112233",
        ("Straße", "10", "a\udcff"),
        {"activation": "gelu", "epsilon": 1e-12},
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
        "squash",
        "etc",
        "44556677",
    )
    assert Metadata.from_json(metadata.to_json()) == metadata


@pytest.mark.parametrize("count", [3, 1000, 20_000])
def test_a_record_of_any_size_is_kept_and_hidden_from_other_loaders(tmp_path, count):
    random = np.random.default_rng(0)
    names = tuple("".join(map(chr, random.integers(33, 127, 70))) for _ in range(count))
    path, metadata = tmp_path / "model.npz", Metadata("ViT-B/16", 224, mean=(0.1, 0.2, 0.3), class_names=names)
    checkpoint.write(path, random_params(CONFIG), metadata)
    arrays, found = checkpoint.read(path)
    assert found == metadata
    assert_same_tree(checkpoint.to_params(arrays, CONFIG, keep_head=True), random_params(CONFIG))
    with np.load(path, allow_pickle=False) as file:
        assert_same_tree(dict(file), _arrays())
    # A program that reads the archive's comment alone finds the rest of the record there.
    with zipfile.ZipFile(path) as archive:
        former = Metadata.from_json(archive.comment.removeprefix(b"ppvit "))
    assert former == (metadata if count == 3 else dataclasses.replace(metadata, class_names=()))


def test_a_large_record_that_lost_a_part_is_damaged(tmp_path):
    path = tmp_path / "model.npz"
    names = tuple(f"{number:070d}" for number in range(1000))
    checkpoint.write(path, random_params(CONFIG), Metadata(class_names=names))
    with zipfile.ZipFile(path, "a") as archive:
        archive.infolist()[-1].comment = b""
        archive.comment = bytes(archive.comment)
    with pytest.raises(UserError, match="damaged"):
        checkpoint.read(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"mean": [0.5]},
        {"mean": [0.5, 0.5, float("nan")]},
        {"std": [0.5, 0.5, 0]},
        {"std": "0.5"},
        {"image_size": -1},
        {"image_size": "224"},
        {"class_names": "abc"},
        {"class_names": [1]},
        {"model_options": {"epsilon": []}},
        {"images_encryption": None},
        {"key_fingerprint": 7},
    ],
)
def test_impossible_values_in_the_record_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        Metadata.from_json(json.dumps(fields))


def test_the_record_tells_apart_what_restore_undoes_and_what_images_the_model_takes():
    adapted = Metadata(encryption="bs", key_fingerprint="aa")
    assert adapted.images == ("bs", "aa")
    assert adapted.trained_on("bs", "aa") == adapted
    other = adapted.trained_on("etc", "bb")
    assert (other.encryption, other.images) == ("bs", ("etc", "bb"))
    assert Metadata().trained_on("bs", "aa").images == ("bs", "aa")
    assert Metadata().trained_on("bs", "aa").trained_on("none", None) == Metadata()
    # An adapted model that was trained on plain images after all takes plain images.
    assert adapted.trained_on("none", None).images == ("none", None)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_neither_written_nor_read(tmp_path, value, dtype):
    path, params = tmp_path / "model.npz", random_params(CONFIG)
    params["cls"] = params["cls"].astype(dtype)
    params["cls"].flat[3] = value
    with pytest.raises(UserError, match=r"not finite .* in cls:"):
        checkpoint.write(path, params, Metadata())
    assert not path.exists()
    with pytest.raises(UserError, match=r"not finite .* in cls:"):
        checkpoint.read(_save(path, flatten(params)))


def test_large_finite_values_are_no_reason_to_refuse_a_file(tmp_path):
    arrays = _arrays() | {"cls": np.full((1, 1, 16), np.finfo(np.float32).max)}
    assert checkpoint.read(_save(tmp_path / "large.npz", arrays))[0]["cls"].max() == np.finfo(np.float32).max


@pytest.mark.parametrize("text", [b"{'descr': '<f4\n", b"{'descr': (\x00", b"((((((", b"{1: 9**9**9}", b"\xff\xfe"])
def test_a_header_that_numpy_cannot_parse_is_damage(tmp_path, text):
    """Numpy parses the header as a Python expression, whose tokenizer has errors of its own."""
    path = tmp_path / "header.npz"
    header = text.ljust(64) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cls.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(UserError, match="damaged"):
        checkpoint.read(path)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "C:/evil", "a\\evil"])
def test_a_path_as_a_name_is_refused(tmp_path, name):
    path = _save(tmp_path / "trap.npz", _arrays())
    with zipfile.ZipFile(path, "a") as archive:
        # ZipInfo's constructor would repair some of these.
        (entry := zipfile.ZipInfo("a")).filename = f"{name}.npy"
        archive.writestr(entry, b"")
    with pytest.raises(UserError, match="has a path as an array's name"):
        checkpoint.read(path)


def test_an_archive_made_to_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, a=np.zeros(10_000_000))
    with pytest.raises(UserError, match="more than 100 times its size"):
        checkpoint.read(path)


def test_a_distilled_model_has_two_heads_that_are_new_or_kept_together():
    config = tiny_transformer("DeiT-S/8-distilled")
    arrays = flatten(random_params(config))
    kept = checkpoint.to_params(arrays, config, keep_head=True)
    assert_same_tree(kept, arrays)
    new = checkpoint.to_params(arrays, dataclasses.replace(config, num_classes=5), keep_head=False)
    for head in ("head", "head_dist"):
        assert new[head]["kernel"].shape == (16, 5) and not new[head]["kernel"].any() and not new[head]["bias"].any()
    headless = {name: array for name, array in arrays.items() if not name.startswith("head")}
    assert_same_tree(
        {name: array for name, array in flatten(new).items() if not name.startswith("head")},
        headless,
    )
    assert models.infer_config(headless, where="it") == dataclasses.replace(config, num_classes=0)
