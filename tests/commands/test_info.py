"""Tests of `ppvit info`."""

import json
from base64 import b64encode

import numpy as np
import pytest
from helpers.command import make_key
from helpers.images import write_images
from helpers.tiny import random_params
from helpers.transformers import tiny_transformers

from ppvit_jax import __main__ as commands
from ppvit_jax import checkpoint, keys, models
from ppvit_jax.command_line import run_command


def _info(path, capsys, expected=0):
    capsys.readouterr()
    assert run_command(commands.main, ["info", str(path)]) == expected
    printed = capsys.readouterr()
    return printed.err if expected else dict(line.split("  ", 1) for line in printed.out.splitlines())


def _strip(facts):
    return {name: value.strip() for name, value in facts.items()}


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_key_tells_its_fingerprint_and_nothing_secret(tmp_path, capsys, passphrase):
    key, path = keys.generate(), tmp_path / "secret.key"
    keys.save(key, path, passphrase)
    facts = _strip(_info(path, capsys))
    assert facts["key fingerprint"] == key.fingerprint and facts["key file"] == "version 1"
    assert facts["protection"] == ("sealed by a passphrase" if passphrase else "file permissions alone")
    secrets = [b64encode(key.master).decode(), key.master.hex()]
    secrets += list(json.loads(path.read_text()).get("sealed", {}).values())
    assert not any(secret in str(facts) for secret in secrets)


@pytest.mark.slow
def test_checkpoints_and_encrypted_images(tmp_path, capsys):
    key = make_key(tmp_path, 1)
    fingerprint = keys.load(key).fingerprint
    facts = _strip(_info("embedded", capsys))
    assert facts["checkpoint"] == "ViT-Micro/8, 1.25 million parameters, float32"
    assert facts["image size"] == "64x64, patches of 8x8"
    assert (facts["classes"], facts["adapted to"], facts["key fingerprint"]) == (
        "200",
        "nothing, a plain model",
        "none",
    )
    options = ["--key", str(key), "--image-size=64"]
    adapt = ["adapt", *options, "--checkpoint=embedded", "--output", str(tmp_path / "adapted.npz")]
    assert run_command(commands.main, adapt) == 0
    facts = _strip(_info(tmp_path / "adapted.npz", capsys))
    assert (facts["adapted to"], facts["key fingerprint"]) == ("bs+ps", fingerprint)

    write_images(tmp_path / "images", ["a/1.png", "b/2.png"])
    encrypt = ["encrypt", *options, "--input", str(tmp_path / "images"), "--output", str(tmp_path / "encrypted")]
    assert run_command(commands.main, encrypt) == 0
    for path in (tmp_path / "encrypted", tmp_path / "encrypted" / "manifest.json"):
        facts = _strip(_info(path, capsys))
        assert facts["images"].startswith("2 files of ") and facts["encryption"] == "bs+ps"
        assert (facts["key fingerprint"], facts["signed by owner"]) == (fingerprint, "yes")


TRANSFORMERS = tiny_transformers()
# Tokens before the patches, pooling, and activation.
PARTS = {
    "ViT-B/8": ("Vision Transformer", "1 class", "token", "gelu_tanh, epsilon 1e-06"),
    "DeiT-S/8-distilled": ("DeiT", "1 class, 1 distillation", "distilled", "gelu, epsilon 1e-06"),
    "DeiT-S/8-III": ("DeiT", "1 class", "token", "gelu, epsilon 1e-06"),
    "DINOv2-S/7": ("DINOv2", "1 class", "token", "gelu, epsilon 1e-06"),
    "DINOv2-B/7-registers": ("DINOv2", "1 class, 4 register", "token", "gelu, epsilon 1e-06"),
    "DINOv3-S/8": ("DINOv3", "1 class, 4 register", "token", "gelu, epsilon 1e-05"),
    "SigLIP-B/8": ("SigLIP", "none", "map", "gelu_tanh, epsilon 1e-06"),
    "CLIP-B/8": ("CLIP", "1 class", "token", "quick_gelu, epsilon 1e-05"),
    "SigLIP-B/8 mean": ("SigLIP", "none", "norm_mean", "gelu_tanh, epsilon 1e-06"),
    "DINOv2-S/7 token and mean": ("DINOv2", "1 class", "token_mean", "gelu, epsilon 1e-06"),
    "DINOv2-g/7-registers as in timm": ("DINOv2", "1 class, 4 register", "token", "silu, epsilon 1e-06"),
}


@pytest.mark.parametrize("title", TRANSFORMERS)
def test_a_model_of_any_family_tells_its_parts_and_what_it_absorbs(tmp_path, capsys, title):
    config = TRANSFORMERS[title]
    record = checkpoint.Metadata(
        image_size=config.image_size,
        model_options=models.recorded_options(config),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    checkpoint.write(tmp_path / "model.npz", random_params(config), record)
    facts = _strip(_info(tmp_path / "model.npz", capsys))
    names = ("family", "tokens before the patches", "pooling", "activation")
    assert tuple(facts[name] for name in names) == PARTS[title]
    mlp = "SwiGLU" if "as in timm" in title else "MLP"
    assert facts["shape"] == f"hidden 16, 2 layers, 2 heads, {mlp} 24"
    side, patch = config.image_size, config.patch_size
    assert facts["image size"] == f"{side}x{side}, patches of {patch}x{patch}" and facts["classes"] == "3"
    assert facts["normalization"] == "mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225)"
    assert facts["absorbs"] == "permuted and inverted values (patch embedding), permuted blocks (positions)"
    in_the_clear = "permutation of blocks" in facts["shows of a key"].partition("; ")[2]
    assert in_the_clear == (facts["family"] == "DINOv3")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm: DINOv2 with registers", "Hugging Face: CLIP's encoder"])
def test_a_published_folder_and_its_file_are_described_like_any_checkpoint(tmp_path, capsys, name):
    from helpers.published import publish

    publish(tmp_path / "model", name)
    facts = _strip(_info(tmp_path / "model", capsys))
    assert facts == _strip(_info(tmp_path / "model" / "model.safetensors", capsys))
    family, mean, program = (
        ("DINOv2", "0.485", "timm") if name.startswith("timm") else ("CLIP", "0.481", "transformers")
    )
    assert facts["family"] == family and facts["normalization"].startswith(f"mean ({mean}")
    assert facts["came from"].startswith(f"{program}, ") and facts["image size"].startswith("32x32, patches of 8x8")


@pytest.mark.slow
def test_an_adapted_model_tells_the_normalization_that_it_was_published_with(tmp_path, capsys):
    record = checkpoint.Metadata(image_size=16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    checkpoint.write(tmp_path / "plain.npz", random_params(TRANSFORMERS["ViT-B/8"]), record)
    options = ["--key", str(make_key(tmp_path, 1)), "--image-size=16", "--output", str(tmp_path / "adapted.npz")]
    assert run_command(commands.main, ["adapt", "--checkpoint", str(tmp_path / "plain.npz"), *options]) == 0
    facts = _strip(_info(tmp_path / "adapted.npz", capsys))
    assert facts["normalization"] == "mean 0.5 and std 0.5"
    assert facts["published with"] == "mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225)"


def test_families_without_positions_say_what_they_absorb(tmp_path, capsys):
    for model, options, absorbed in (
        ("ConvMixer-8/1", {"patch_size": 4}, "permuted and inverted values (patch embedding), and no permuted blocks"),
        (
            "ConvMixer-8/1",
            {"patch_size": 4, "adaptive_matrix": "free"},
            "permuted and inverted values (patch embedding), permuted blocks (adaptive matrix)",
        ),
        ("ResNet-18", {}, "nothing, because its convolutions reach across"),
    ):
        config = models.parse_name(model, image_size=16, num_classes=2, options=options)
        params = {name: np.zeros(shape, np.float32) for name, shape in models.parameter_shapes(config).items()}
        record = checkpoint.Metadata(model, 16, class_names=("a", "b"), model_options=models.recorded_options(config))
        checkpoint.write(tmp_path / "model.npz", params, record)
        facts = _strip(_info(tmp_path / "model.npz", capsys))
        assert facts["absorbs"].startswith(absorbed) and facts["family"] == model.partition("-")[0]
        (tmp_path / "model.npz").unlink()


def test_what_is_unknown_gives_one_line(tmp_path, capsys):
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").write_text("")
    (tmp_path / "zip.npz").write_bytes(b"PK\x03\x04")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    keys.save(keys.generate(), tmp_path / "open.key")
    (tmp_path / "open.key").chmod(0o644)
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "bare").mkdir()
    for name, message in {
        "nothing": "there is no",
        "text": "is neither a checkpoint nor a key",
        "empty": "is neither a checkpoint nor a key",
        "zip.npz": "truncated, damaged or not a .npz file",
        "other.npz": "is not a Vision Transformer",
        "open.key": "can be read by others",
        "other.json": "is JSON of another kind and not a key file",
        "run": "is not the workdir of a run",
        "bare": "has neither a manifest.json, nor weights, nor",
    }.items():
        errors = str(_info(tmp_path / name, capsys, expected=1))
        assert message in errors and errors.count("\n") == 1, name


def test_a_checkpoint_of_another_family_says_what_it_knows(tmp_path, capsys):
    model = checkpoint.Metadata("ConvMixer-8/1", 16, "ps", "0" * 32, ("cat", "dog"))
    params = {"head": {"kernel": np.zeros((8, 2), np.float32)}}
    checkpoint.write(tmp_path / "model.npz", checkpoint.join(params, {"norm": {"mean": np.zeros(4)}}), model)
    facts = _strip(_info(tmp_path / "model.npz", capsys))
    assert facts["checkpoint"] == "ConvMixer-8/1, 0.00 million parameters and statistics, float32, float64"
    assert (facts["image size"], facts["classes"]) == ("16x16", "2 (cat, dog)")
    assert (facts["adapted to"], facts["key fingerprint"]) == ("ps", "0" * 32)
