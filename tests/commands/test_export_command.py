"""Tests of `ppvit export`, and of `ppvit info` for what it writes."""

import json
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.command import make_key
from helpers.command import run_ppvit as _run
from helpers.tiny import random_images, random_params, tiny_model
from helpers.tiny_families import IMAGENET, tiny_family

import ppvit_jax
from ppvit_jax import adaptation, checkpoint, errors, keys
from ppvit_jax.checkpoint import Metadata

MODEL = tiny_model(image_size=16, patch_size=4)
PARAMS = random_params(MODEL)
CLASSES = ("cat", "dog", "owl")
IMAGES = random_images(5, 16)
FORMATS = ("stablehlo", "onnx")


@pytest.fixture
def folder(tmp_path):
    """A folder with a plain and an adapted model, and a key."""
    key = keys.load(make_key(tmp_path, 1))
    adapted = adaptation.adapt(PARAMS, key.permutations("bs+ps", image_size=16, patch_size=4))
    checkpoint.write(tmp_path / "plain.npz", PARAMS, Metadata("", 16, class_names=CLASSES))
    checkpoint.write(tmp_path / "adapted.npz", adapted, Metadata("", 16, "bs+ps", key.fingerprint, CLASSES))
    return tmp_path


def _export(folder, model, output, *options):
    return _run("export", "--checkpoint", folder / model, "--output", folder / output, *options)


def _run_program(path, images):
    if path.suffix == ".stablehlo":
        return np.asarray(ppvit_jax.load_stablehlo(path)[0](images))
    (logits,) = onnxruntime.InferenceSession(str(path)).run(None, {"images": images})
    return np.asarray(logits)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_the_program_of_an_adapted_model_takes_encrypted_images_without_the_key(folder, capsys, form):
    key = keys.load(folder / "1.key")
    permutations = ppvit_jax.derive_permutations(key, "bs+ps", image_size=16, block_size=4)
    encrypted = ppvit_jax.encrypt(IMAGES, permutations, block_size=4)
    (folder / "1.key").unlink()
    assert _export(folder, "adapted.npz", f"adapted.{form}") == 0
    output, notes = capsys.readouterr()
    assert output.startswith(f"{folder}/adapted.{form}: Vision Transformer, 16x16, ")
    fingerprint = f"'bs+ps' (key fingerprint {key.fingerprint})"
    assert f"note: the program takes images encrypted with {fingerprint} of 16x16 pixels" in notes
    assert _export(folder, "plain.npz", f"plain.{form}") == 0
    assert "note: the program takes plain images of 16x16 pixels" in capsys.readouterr().err
    expected = ppvit_jax.compute_logits(PARAMS, IMAGES)
    assert np.ptp(expected) > 0.1
    for name, images in (("plain", IMAGES), ("adapted", encrypted)):
        logits = _run_program(folder / f"{name}.{form}", np.asarray(images))
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)

    assert _run("info", folder / f"adapted.{form}") == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    facts = {name.strip(): value.strip() for name, value in lines.items()}
    assert facts["program"] == f"Vision Transformer, {'ONNX' if form == 'onnx' else 'StableHLO'}"
    assert facts["images"] == f"images encrypted with {fingerprint}"
    assert (facts["class names"], facts["block size"], facts["key fingerprint"]) == (
        "cat, dog, owl",
        "4",
        key.fingerprint,
    )
    assert facts["input"] == "images, uint8 [batch, 16, 16, 3], red, green and blue from 0 to 255"
    assert (facts["normalizes by mean"], facts["version"]) == ("0.5, 0.5, 0.5", ppvit_jax.__version__)


def test_both_files_carry_the_same_description(folder):
    for form in FORMATS:
        assert _export(folder, "adapted.npz", f"m.{form}") == 0
    properties = {entry.key: entry.value for entry in onnx.load(folder / "m.onnx").metadata_props}
    with zipfile.ZipFile(folder / "m.stablehlo") as archive:
        description = json.loads(archive.read("description.json"))
    assert description.pop("platforms") == ["cpu", "cuda", "tpu"]
    assert properties.keys() == description.keys()
    assert json.loads(properties["class_names"]) == description["class_names"] == list(CLASSES)
    assert (description["encryption"], description["adapted_to"], description["classes"]) == ("bs+ps", "bs+ps", 3)


@pytest.mark.slow
def test_the_recorded_normalization_is_inside(folder):
    config = tiny_family("MAE")
    params, metadata = random_params(config), Metadata("", 16, mean=IMAGENET[0], std=IMAGENET[1])
    metadata = Metadata(**{**vars(metadata), "model_options": {"activation": "gelu", "pool": "mean"}})
    checkpoint.write(folder / "mae.npz", params, metadata)
    assert _export(folder, "mae.npz", "mae.onnx") == 0
    expected = ppvit_jax.compute_logits(params, IMAGES, metadata)
    np.testing.assert_allclose(_run_program(folder / "mae.onnx", IMAGES), expected, rtol=0, atol=1e-4)


def test_a_plain_model_is_resized_and_one_of_encrypted_images_is_not(folder, capsys):
    assert _export(folder, "plain.npz", "large.onnx", "--image-size=24") == 0
    assert "the position embedding of" in capsys.readouterr().err
    assert _run_program(folder / "large.onnx", random_images(2, 24)).shape == (2, 3)
    assert _export(folder, "adapted.npz", "other.onnx", "--image-size=24") == 1
    assert "takes encrypted images, and cannot be resized to --image-size 24: leave it out" in capsys.readouterr().err
    assert not (folder / "other.onnx").exists()
    assert _export(folder, "adapted.npz", "same.onnx", "--image-size=16") == 0


@pytest.mark.parametrize(
    ("model", "output", "options", "message"),
    [
        ("plain.npz", "m.pt", (), "m.pt ends neither in .stablehlo nor in .onnx: choose one of them"),
        ("plain.npz", "plain.npz", (), "exists: choose another name for the exported model"),
        ("headless.npz", "m.onnx", (), "has no head, so it has no logits: fine-tune it first"),
        ("plain.npz", "m.onnx", ("--dtype=bfloat16",), "leave --dtype out, or give --output a name that ends with"),
        ("plain.npz", "m.stablehlo", ("--image-size=17",), "is not a multiple of the model's patch size 4"),
        ("plain.npz", "m.stablehlo", ("--image-size=0",), "--image-size is 0: give at least 1"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_file(folder, capsys, model, output, options, message):
    headless = {name: layer for name, layer in PARAMS.items() if name != "head"}
    checkpoint.write(folder / "headless.npz", headless, Metadata("", 16))
    before = sorted(folder.iterdir())
    assert _export(folder, model, output, *options) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(folder.iterdir()) == before


def test_onnx_without_its_library_names_the_command_that_installs_it(folder, capsys, monkeypatch):
    monkeypatch.setattr(errors, "is_installed", lambda module: module != "onnx")
    assert _export(folder, "plain.npz", "m.onnx") == 1
    assert "an .onnx file needs onnx: run pip install 'ppvit-jax[onnx]', or give --output" in capsys.readouterr().err
    (folder / "m.onnx").write_bytes(b"\x08\x09")
    assert _run("info", folder / "m.onnx") == 1
    assert "run pip install 'ppvit-jax[onnx]'" in capsys.readouterr().err


def test_a_program_is_no_checkpoint_and_another_programs_file_is_not_ours(folder, capsys):
    assert _export(folder, "plain.npz", "m.stablehlo") == 0
    arguments = ("--checkpoint", folder / "m.stablehlo", "--input", folder, "--output", folder / "out.csv")
    assert _run("predict", *arguments) == 1
    assert "is a program from ppvit export and not a .npz file: give the checkpoint" in capsys.readouterr().err
    onnx.save(onnx.ModelProto(ir_version=9), folder / "other.onnx")
    (folder / "broken.onnx").write_bytes(b"not a message")
    for name, message in (("other.onnx", "is neither a checkpoint"), ("broken.onnx", "is not an ONNX file, or is")):
        assert _run("info", folder / name) == 1
        assert message in capsys.readouterr().err
