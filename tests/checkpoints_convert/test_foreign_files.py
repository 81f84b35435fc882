"""Files of PyTorch and safetensors as training programs write them, and files that are something else."""

import argparse
import io
import json
import pickle
import re
import shlex
import zipfile

import ml_dtypes
import numpy as np
import pytest
from helpers.convert import arrays, convert
from helpers.pytorch import timm, torch
from helpers.tiny import assert_same_tree, flatten, random_params, tiny_model
from safetensors.numpy import save_file

from checkpoints_convert.names import from_google
from checkpoints_convert.tables.vit import TIMM
from ppvit_jax import checkpoint

CONFIG = tiny_model()
HEADS = "--heads=2"


def _state(seed=0, prefix="", dtype=np.float32):
    named = flatten(random_params(CONFIG, seed))
    state = from_google(named, TIMM, layers=CONFIG.layers)
    return {prefix + name: torch.from_numpy(array.astype(dtype)) for name, array in state.items()}


def _training_state(**more):
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return {"epoch": 3, "arch": "vit", "optimizer": optimizer, **more}


WRITTEN = {
    "a tar by its name": ("model_best.pth.tar", lambda: _state(), ""),
    "capitals": ("X.PTH", lambda: _state(), ""),
    "no ending": ("weights", lambda: _state(), ""),
    "Lightning": (
        "last.ckpt",
        lambda: {"state_dict": _state(prefix="model."), "hyper_parameters": {"lr": 1}, "callbacks": {}},
        "the prefix model. is removed from",
    ),
    "DDP": ("ddp.bin", lambda: _state(prefix="module."), "the prefix module. is removed from"),
    "compiled DDP": (
        "c.pt",
        lambda: _state(prefix="_orig_mod.module."),
        "the prefix _orig_mod.module. is removed from",
    ),
    "a backbone": ("b.pth", lambda: {"model": {"state_dict": _state(prefix="net.backbone.")}}, "prefix net.backbone."),
    "timm's train.py": (
        "last.pth.tar",
        lambda: _training_state(state_dict=_state(), args=argparse.Namespace(lr=0.1, mean=None, std=None)),
        "the weights in state_dict of .* are converted",
    ),
    "counters and a loss": (
        "l.pth",
        lambda: {**_state(prefix="model."), "n_averaged": torch.tensor(3), "criterion.weight": torch.ones(3)},
        "the prefix model. is removed",
    ),
    "an unusual wrapper": (
        "w.pth",
        lambda: _training_state(student=_state()),
        "the weights in student of .* are converted",
    ),
    "trainable parameters": ("p.pth", lambda: {n: torch.nn.Parameter(t) for n, t in _state().items()}, ""),
    "numbers beside the tensors": ("n.pth", lambda: {**_state(), "epoch": 3}, "values of .* left out: epoch"),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_the_model_is_found_in_what_training_programs_write(tmp_path, capsys, form):
    name, make, message = WRITTEN[form]
    torch.save(make(), tmp_path / name)
    assert convert("timm_to_npz", tmp_path / name, tmp_path / "out.npz", HEADS) == 0
    assert_same_tree(arrays(tmp_path / "out.npz")[0], flatten(random_params(CONFIG)))
    errors = capsys.readouterr().err
    assert re.search(message, errors) and all(line.startswith("note: ") for line in errors.splitlines()), errors


def test_old_and_safe_files_are_recognized_whatever_their_ending(tmp_path):
    torch.save(_state(), tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    save_file({name: tensor.numpy() for name, tensor in _state().items()}, tmp_path / "safe.pth")
    for name in ("old.safetensors", "safe.pth"):
        assert convert("timm_to_npz", tmp_path / name, tmp_path / f"{name}.npz", HEADS) == 0
        assert_same_tree(arrays(tmp_path / f"{name}.npz")[0], flatten(random_params(CONFIG)))


BOTH = {
    "timm": lambda: _training_state(state_dict=_state(0), state_dict_ema=_state(1)),
    "torchvision": lambda: {
        "model": _state(0),
        "model_ema": {**_state(1, "module."), "n_averaged": torch.tensor(9)},
    },
    "Lightning": lambda: {"state_dict": _state(0, "model.") | _state(1, "ema_model.module.")},
}


@pytest.mark.slow
@pytest.mark.parametrize("program", BOTH)
def test_the_average_is_taken_unless_another_choice_is_made(tmp_path, capsys, program):
    torch.save(BOTH[program](), tmp_path / "both.pth")
    for number, (options, seed) in enumerate([((), 1), (("--weights=ema",), 1), (("--weights=model",), 0)]):
        target = tmp_path / f"{number}.npz"
        assert convert("timm_to_npz", tmp_path / "both.pth", target, HEADS, *options) == 0
        assert_same_tree(arrays(target)[0], flatten(random_params(CONFIG, seed)))
        assert "weights" in capsys.readouterr().err
    torch.save(_state(), tmp_path / "one.pth")
    assert convert("timm_to_npz", tmp_path / "one.pth", tmp_path / "n.npz", HEADS, "--weights=ema") == 1
    assert "one.pth has no averaged weights: leave out --weights ema" in capsys.readouterr().err


def _saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _archive(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 99)
    return file.getvalue()


def _npz():
    file = io.BytesIO()
    np.savez(file, x=np.ones(3))
    return file.getvalue()


class _Settings:
    pass


INDEX = json.dumps({"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}).encode()
OTHERS = {
    "a web page": (lambda: b"<!DOCTYPE html><html>", "is a web page and not .*: the download failed"),
    "an error of a bucket": (lambda: b'<?xml version="1.0"?><Error>', "is a web page and not"),
    "a pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run git lfs pull"),
    "an index": (lambda: INDEX, "lacks model-00001-of-00002.safetensors, one of the 1 files that model.pth names"),
    "JSON": (lambda: b'{"a": 1}', "is JSON text and not"),
    "nothing": (lambda: b"", "is empty and not .*download it again"),
    "an image": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(99), "is an image and not"),
    "Keras": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file"),
    "compressed": (lambda: b"\x1f\x8b\x08" + bytes(99), "unpack it first"),
    "a packed tar": (lambda: bytes(257) + b"ustar" + bytes(300), "unpack it first"),
    "a zip of files": (lambda: _archive("a.txt"), "unpack it first"),
    "a cut zip": (lambda: _saved({"x": torch.ones(99)})[:400], "truncated or damaged"),
    "Google's": (_npz, "is a .npz file and not a PyTorch or safetensors file: give it to ppvit as it is"),
    "TorchScript": (lambda: _archive("m/code/a.py", "m/constants.pkl", "m/data.pkl"), "TorchScript program"),
    "a bare pickle": (lambda: pickle.dumps({"cls": 1}), "is a pickle of Python objects, which could run code"),
    "noise": (lambda: b"\1\2\3noise", "is neither a PyTorch nor a safetensors file"),
    "a tensor": (lambda: _saved(torch.ones(3)), "is not a state dict"),
    "an object": (
        lambda: _saved(_training_state(state_dict=_state(), args=_Settings())),
        r"holds objects of .*_Settings, which could run code: if you trust .* python -c 'import torch; .*weights.pth",
    ),
    "a number of numpy": (
        lambda: _saved(_training_state(state_dict=_state(), best=np.float64(3))), "objects of numpy.*weights.pth",
    ),
    "a whole model": (lambda: _saved(torch.nn.Linear(2, 3)), "objects of torch.nn.*weights.pth"),
    "eight bits": (
        lambda: _saved(_state() | {"head.weight": torch.ones(3, 16, dtype=torch.int8)}),
        "has head.weight as int8, and quantized or integer weights cannot be converted: export the model in float32",
    ),
    "a float of eight bits": (
        lambda: _saved({n: t.to(torch.float8_e4m3fn) for n, t in _state().items()}), "as float8_e4m3fn, and quantized",
    ),
    "quantized": (
        lambda: _saved(_state() | {"head.weight": torch.quantize_per_tensor(torch.ones(3, 16), 0.1, 0, torch.qint8)}),
        "head.weight as qint8, and quantized",
    ),
    "NaN": (lambda: _saved(_state() | {"norm.bias": torch.full((16,), np.nan)}), "not finite .* in norm.bias"),
    "a head of its own": (
        lambda: _saved(_state(prefix="backbone.") | {"fc.weight": torch.ones(3, 16)}),
        "has fc.weight beside the model backbone",
    ),
    "two models": (
        lambda: _saved(_state(prefix="teacher.") | _state(prefix="student.")),
        "holds several models, with the prefixes 'student.', 'teacher.': save one",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("other", OTHERS)
def test_other_files_are_called_what_they_are(tmp_path, capsys, other):
    make, message = OTHERS[other]
    (tmp_path / "model.pth").write_bytes(make())
    assert convert("timm_to_npz", tmp_path / "model.pth", tmp_path / "out.npz", HEADS) == 1
    errors = capsys.readouterr().err.splitlines()
    assert re.search(message, errors[-1]) and "\x1b" not in errors[-1], errors
    assert [line.partition(": ")[0] for line in errors] == ["note"] * (len(errors) - 1) + ["error"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pth"]


@pytest.mark.parametrize("form", ["a state with objects", "a state with a model", "a model"])
def test_the_python_line_of_the_message_saves_the_weights_alone(tmp_path, capsys, monkeypatch, form):
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=3, mlp_ratio=2
    )
    model.load_state_dict(_state())
    objects = {"state_dict": _state(), "state_dict_ema": _state(1), "args": _Settings()}
    content = {"a state with objects": objects, "a state with a model": {"model": model, "epoch": 1}, "a model": model}
    torch.save(content[form], tmp_path / 'it"s.pth')
    assert convert("timm_to_npz", tmp_path / 'it"s.pth', tmp_path / "out.npz", HEADS) == 1
    command = re.search("by (python -c .*), then convert weights.pth", capsys.readouterr().err)
    assert command
    monkeypatch.chdir(tmp_path)
    exec(shlex.split(command[1])[2], {})
    assert convert("timm_to_npz", tmp_path / "weights.pth", tmp_path / "out.npz", HEADS, "--weights=model") == 0
    assert_same_tree(arrays(tmp_path / "out.npz")[0], flatten(random_params(CONFIG)))


@pytest.mark.parametrize("script", ["npz_to_timm", "npz_to_hf", "big_vision_to_npz"])
def test_weights_of_pytorch_are_not_taken_for_a_damaged_npz(tmp_path, capsys, script):
    torch.save(_state(), tmp_path / "model.npz")
    assert convert(script, tmp_path / "model.npz", tmp_path / "out.safetensors") == 1
    assert "is a PyTorch file and not a .npz file: convert it by ppvit convert timm-to-npz" in capsys.readouterr().err


def test_a_folder_and_a_file_are_not_mixed_up(tmp_path, capsys):
    checkpoint.write(tmp_path / "model.npz", random_params(CONFIG), checkpoint.Metadata())
    assert convert("timm_to_npz", tmp_path, tmp_path / "out.npz") == 1
    assert "is a folder and not a PyTorch or safetensors file" in capsys.readouterr().err
    assert convert("hf_to_npz", tmp_path / "model.npz", tmp_path / "out.npz") == 1
    assert "is a .npz file and not a folder with config.json" in capsys.readouterr().err


OBSTACLES = {
    "Hugging Face": ("vit.embeddings.patch_embeddings.projection.bias", "hf-to-npz"),
    "torchvision": ("conv_proj.weight", "torchvision's"),
    "register tokens": ("reg_token", "register tokens"),
    "distillation": ("dist_token", "distillation token"),
    "normalized queries": ("blocks.0.attn.q_norm.weight", "qk_norm"),
    "layer scale": ("blocks.1.ls1.gamma", "layer scale"),
    "average pooling": ("fc_norm.weight", "fc_norm"),
    "pre-norm": ("norm_pre.weight", "pre_norm"),
    "a masked autoencoder": ("decoder_embed.weight", "masked autoencoder"),
    "relative positions": ("blocks.0.attn.relative_position_bias_table", "relative positions"),
    "something unknown": ("blocks.0.strange.weight", "it also has blocks.0.strange.weight"),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_a_part_that_google_lacks_is_named(tmp_path, capsys, obstacle):
    name, message = OBSTACLES[obstacle]
    torch.save(_state(prefix="module.") | {f"module.{name}": torch.ones(3)}, tmp_path / "model.pth")
    assert convert("timm_to_npz", tmp_path / "model.pth", tmp_path / "out.npz", HEADS) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error and name in error and "is not one of Google's Vision Transformers" in error


def test_a_model_without_biases_of_queries_or_without_class_token_is_named(tmp_path, capsys):
    for ending, message in (("qkv.bias", "qkv_bias=False"), ("cls_token", "it has no cls_token")):
        torch.save({n: t for n, t in _state().items() if not n.endswith(ending)}, tmp_path / "model.pth")
        assert convert("timm_to_npz", tmp_path / "model.pth", tmp_path / "out.npz", HEADS) == 1
        assert message in capsys.readouterr().err


def test_images_of_one_channel_and_oblong_patches_are_named(tmp_path, capsys):
    for shape, message in (((16, 1, 4, 4), "4x4 pixels and 1 channels"), ((16, 3, 4, 8), "4x8 pixels and 3 channels")):
        torch.save(_state() | {"patch_embed.proj.weight": torch.ones(shape)}, tmp_path / "model.pth")
        assert convert("timm_to_npz", tmp_path / "model.pth", tmp_path / "out.npz", HEADS) == 1
        assert f"{message}, but only square patches of RGB images" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_positions_of_the_patches_alone_give_the_class_token_the_position_zero(tmp_path):
    """As timm computes a model with no_embed_class."""
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}
    make = timm.models.vision_transformer.VisionTransformer
    theirs = make(**options, no_embed_class=True).eval()
    torch.save(theirs.state_dict(), tmp_path / "model.pth")
    assert convert("timm_to_npz", tmp_path / "model.pth", tmp_path / "out.npz", HEADS) == 0
    assert convert("npz_to_timm", tmp_path / "out.npz", tmp_path / "back.pth") == 0
    ours = make(**options).eval()
    ours.load_state_dict(torch.load(tmp_path / "back.pth", weights_only=True), strict=True)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_a_pth_file_keeps_bits_and_record_there_and_back(tmp_path, dtype):
    halves = {name: array.astype(dtype) for name, array in flatten(random_params(CONFIG)).items()}
    metadata = checkpoint.Metadata("", 16, "bs+ps", "0" * 32, ("a", "b", "c"), mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    checkpoint.write(tmp_path / "model.npz", halves, metadata)
    assert convert("npz_to_timm", tmp_path / "model.npz", tmp_path / "model.pth") == 0
    state = timm.models.load_state_dict(str(tmp_path / "model.pth"))
    assert {str(tensor.dtype) for tensor in state.values()} == {f"torch.{np.dtype(dtype)}"}
    assert convert("timm_to_npz", tmp_path / "model.pth", tmp_path / "back.npz") == 0
    assert_same_tree(arrays(tmp_path / "back.npz")[0], halves)
    assert arrays(tmp_path / "back.npz")[1] == metadata
