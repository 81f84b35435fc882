"""Conversions between Google's `.npz` and timm, compared with timm's own models and loaders."""

import re

import ml_dtypes
import numpy as np
import pytest
from helpers.convert import CLASSES, arrays, convert, encrypted_files, logits, randomize, tiny_vit, write_model
from helpers.pytorch import timm, torch
from helpers.tiny import assert_same_tree, flatten, random_images, random_params
from PIL import Image
from safetensors.numpy import load_file, save_file

from ppvit_jax import checkpoint, models

CONFIG = tiny_vit()
NAME = "vit_tiny_patch16_224"


def _timm(name, config, **options):
    return timm.create_model(
        name, num_classes=config.num_classes, img_size=config.image_size, act_layer="gelu_tanh", **options
    ).eval()


def _logits(model, images):
    with torch.no_grad():
        return model(torch.tensor(images.astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1)).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_timm_loads_what_we_write_and_computes_the_same(tmp_path, ending):
    source, target = tmp_path / "model.npz", tmp_path / f"model{ending}"
    params, _ = write_model(source, CONFIG)
    assert convert("npz_to_timm", source, target) == 0
    images = random_images(3, CONFIG.image_size)
    expected = logits(params, CONFIG, images)
    assert expected.std() > 0.1
    np.testing.assert_allclose(_logits(_timm(NAME, CONFIG, checkpoint_path=target), images), expected, atol=1e-5)
    model = _timm(NAME, CONFIG)
    state = load_file(target) if ending == ".safetensors" else torch.load(target, weights_only=True)
    model.load_state_dict({name: torch.as_tensor(tensor) for name, tensor in state.items()}, strict=True)
    np.testing.assert_allclose(_logits(model, images), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-Ti/16", "ViT-S/16"])
def test_our_state_dict_is_that_of_timms_own_loader_of_the_npz(tmp_path, name):
    config = tiny_vit(name=name)
    source, target = tmp_path / "model.npz", tmp_path / "model.safetensors"
    write_model(source, config)
    assert convert("npz_to_timm", source, target) == 0
    model = _timm(
        name.lower().replace("ti/", "tiny_patch").replace("s/", "small_patch").replace("-", "_") + "_224", config
    )
    model.load_pretrained(str(source))
    theirs = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert_same_tree(load_file(target), theirs)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt"])
def test_what_timm_saves_is_read(tmp_path, ending):
    model = randomize(_timm(NAME, CONFIG))
    source, target = tmp_path / f"model{ending}", tmp_path / "model.npz"
    if ending == ".safetensors":
        save_file({name: tensor.numpy() for name, tensor in model.state_dict().items()}, source)
    else:
        # timm's training script wraps its weights so.
        torch.save({"state_dict": model.state_dict()} if ending == ".pth" else model.state_dict(), source)
    assert convert("timm_to_npz", source, target) == 0
    found, metadata = arrays(target)
    assert (metadata.model, metadata.image_size, metadata.encryption) == ("ViT-Ti/16", 64, "none")
    params = checkpoint.to_params(found, CONFIG, keep_head=True)
    images = random_images(3, CONFIG.image_size)
    theirs = _logits(model, images)
    assert theirs.std() > 0.1
    np.testing.assert_allclose(logits(params, CONFIG, images), theirs, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("adapted", [False, True])
def test_there_and_back_is_the_same_file(tmp_path, ending, adapted):
    source, there, back = tmp_path / "model.npz", tmp_path / f"model{ending}", tmp_path / "back.npz"
    _, metadata = write_model(source, CONFIG, adapted=adapted)
    assert convert("npz_to_timm", source, there) == 0
    assert convert("timm_to_npz", there, back) == 0
    assert_same_tree(arrays(back)[0], arrays(source)[0])
    assert arrays(back)[1] == metadata


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "timm_name", "tolerance"),
    [("ViT-Ti/16", 64, NAME, 1e-5), ("ViT-B/16", 224, "vit_base_patch16_224", 1e-4)],
)
def test_an_adapted_model_on_encrypted_files_gives_our_logits(tmp_path, name, size, timm_name, tolerance):
    """timm preprocesses the files, with mean and standard deviation 0.5."""
    config = tiny_vit(size, name)
    source, target = tmp_path / "model.npz", tmp_path / "model.safetensors"
    params, _ = write_model(source, config, adapted=True)
    paths, plain = encrypted_files(tmp_path, config)
    assert convert("npz_to_timm", source, target) == 0
    model = _timm(timm_name, config, checkpoint_path=target)
    half = (0.5, 0.5, 0.5)
    transform = timm.data.create_transform(size, mean=half, std=half, crop_pct=1.0, interpolation="bilinear")
    with torch.no_grad():
        theirs = model(torch.stack([transform(Image.open(path)) for path in paths])).numpy()
    encrypted = np.stack([np.asarray(Image.open(path)) for path in paths])
    np.testing.assert_allclose(theirs, logits(params, config, encrypted), rtol=0, atol=tolerance)
    # These are also the plain model's logits on plain images.
    np.testing.assert_allclose(theirs, logits(random_params(config), config, plain), rtol=0, atol=tolerance)


@pytest.mark.slow
def test_a_file_without_head_gives_a_checkpoint_for_fine_tuning(tmp_path):
    source, there, back = tmp_path / "model.npz", tmp_path / "model.safetensors", tmp_path / "back.npz"
    write_model(source, tiny_vit(representation_size=24))
    assert convert("npz_to_timm", source, there) == 1
    assert convert("npz_to_timm", source, there, "--without-head") == 0
    _timm(NAME, models.parse_name("ViT-Ti/16", image_size=64, num_classes=0)).load_state_dict(
        {name: torch.as_tensor(tensor) for name, tensor in load_file(there).items()}, strict=True
    )
    assert convert("timm_to_npz", there, back) == 0
    found, _ = arrays(back)
    assert not any(name.startswith(("head/", "pre_logits/")) for name in found)
    params = checkpoint.to_params(found, CONFIG, keep_head=False)
    assert params["head"]["kernel"].shape == (192, len(CLASSES)) and not params["head"]["kernel"].any()


@pytest.mark.slow
def test_the_pre_logits_of_older_files_are_read(tmp_path):
    config = tiny_vit(representation_size=24)
    source, target = tmp_path / "old.safetensors", tmp_path / "model.npz"
    params = flatten(random_params(config))
    write_model(tmp_path / "plain.npz", CONFIG)
    assert convert("npz_to_timm", tmp_path / "plain.npz", tmp_path / "plain.safetensors") == 0
    state = load_file(tmp_path / "plain.safetensors")
    state |= {
        "pre_logits.fc.weight": params["pre_logits/kernel"].T.copy(),
        "pre_logits.fc.bias": params["pre_logits/bias"],
    }
    state |= {"head.weight": params["head/kernel"].T.copy(), "head.bias": params["head/bias"]}
    save_file(state, source)
    assert convert("timm_to_npz", source, target) == 0
    found, _ = arrays(target)
    for name in ("pre_logits/kernel", "pre_logits/bias", "head/kernel"):
        np.testing.assert_array_equal(found[name], params[name])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_is_kept(tmp_path, dtype):
    source, there, back = tmp_path / "model.npz", tmp_path / "model.safetensors", tmp_path / "back.npz"
    halves = {name: array.astype(dtype) for name, array in flatten(random_params(CONFIG)).items()}
    with source.open("wb") as file:
        np.savez(file, **halves)
    assert convert("npz_to_timm", source, there) == 0
    assert _timm(NAME, CONFIG, checkpoint_path=there) is not None
    assert convert("timm_to_npz", there, back) == 0
    assert_same_tree(arrays(back)[0], halves)


def test_another_number_of_heads_comes_back_or_can_be_given(tmp_path, capsys):
    config = models.ViTConfig(16, 48, 2, 3, 96, 64, 5)
    source, there, back = tmp_path / "model.npz", tmp_path / "model.safetensors", tmp_path / "back.npz"
    checkpoint.write(source, random_params(config), checkpoint.Metadata())
    assert convert("npz_to_timm", source, there) == 0
    assert convert("timm_to_npz", there, back) == 0
    assert_same_tree(arrays(back)[0], arrays(source)[0])
    save_file(load_file(there), there)
    assert convert("timm_to_npz", there, tmp_path / "none.npz") == 1
    assert "has a hidden size of 48: give its number of attention heads" in capsys.readouterr().err
    assert convert("timm_to_npz", there, tmp_path / "none.npz", "--heads=5") == 1
    assert "has a hidden size of 48, which 5 attention heads do not divide" in capsys.readouterr().err
    assert convert("timm_to_npz", there, tmp_path / "given.npz", "--heads=3") == 0
    assert_same_tree(arrays(tmp_path / "given.npz")[0], arrays(source)[0])


class _Trap:
    def __reduce__(self):
        return print, ("code that a file should not run",)


def _change(folder, **tensors):
    save_file(load_file(folder / "timm.safetensors") | tensors, folder / "timm.safetensors")


def _half(folder):
    whole = dict(np.load(folder / "model.npz"))
    del whole["Transformer/encoder_norm/scale"]
    np.savez(folder / "half.npz", **whole)


MISTAKES = {
    "no file": (None, ["timm_to_npz", "none.safetensors", "out.npz"], "cannot read .*none.safetensors"),
    "no pickle": (None, ["timm_to_npz", "none.pth", "out.npz"], "cannot read .*none.pth"),
    "truncated": (
        lambda f: (f / "timm.safetensors").write_bytes((f / "timm.safetensors").read_bytes()[:9000]),
        ["timm_to_npz", "timm.safetensors", "out.npz"],
        "as safetensors",
    ),
    "a pickle with code": (
        lambda f: torch.save({"model": _Trap()}, f / "trap.pth"),
        ["timm_to_npz", "trap.pth", "out.npz"],
        "cannot read .*trap.pth as weights alone",
    ),
    "not tensors": (
        lambda f: torch.save({"epoch": 3}, f / "epoch.pth"),
        ["timm_to_npz", "epoch.pth", "out.npz"],
        "is not a state dict",
    ),
    "noise": (
        lambda f: (f / "noise.pth").write_bytes(b"noise"),
        ["timm_to_npz", "noise.pth", "out.npz"],
        "cannot read .*noise.pth as weights alone",
    ),
    "another model": (
        lambda f: save_file({"conv1.weight": np.zeros((3, 3))}, f / "other.safetensors"),
        ["timm_to_npz", "other.safetensors", "out.npz"],
        "is not a Vision Transformer of timm with a class token",
    ),
    "layer scale": (
        lambda f: _change(f, **{"blocks.0.ls1.gamma": np.ones(192, np.float32)}),
        ["timm_to_npz", "timm.safetensors", "out.npz"],
        r"it has layer scale \(init_values\) \(blocks.0.ls1.gamma\)",
    ),
    "register tokens": (
        lambda f: _change(f, reg_token=np.ones((1, 4, 192), np.float32)),
        ["timm_to_npz", "timm.safetensors", "out.npz"],
        r"it has register tokens \(reg_token\)",
    ),
    "two class tokens": (
        lambda f: _change(f, pos_embed=np.ones((1, 18, 192), np.float32)),
        ["timm_to_npz", "timm.safetensors", "out.npz"],
        "not a class token and a square grid",
    ),
    "an odd shape": (
        lambda f: _change(f, **{"blocks.0.attn.qkv.weight": np.ones((100, 192), np.float32)}),
        ["timm_to_npz", "timm.safetensors", "out.npz"],
        "blocks.0.attn.qkv.weight has the impossible shape",
    ),
    "another ending": (None, ["npz_to_timm", "model.npz", "out.bin"], "ends neither in .safetensors nor in .pth"),
    "not a checkpoint": (None, ["npz_to_timm", "timm.safetensors", "out.pth"], "not a .npz file"),
    "half a checkpoint": (
        lambda f: _half(f),
        ["npz_to_timm", "half.npz", "out.pth"],
        "does not fit the model: missing Transformer/encoder_norm/scale",
    ),
    "target exists": (None, ["npz_to_timm", "model.npz", "timm.safetensors"], "exists: choose another name"),
    "target nowhere": (None, ["npz_to_timm", "model.npz", "no/out.pth"], "there is no folder"),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_line_and_writes_nothing(tmp_path, capsys, mistake):
    make, (script, source, target), message = MISTAKES[mistake]
    write_model(tmp_path / "model.npz", CONFIG)
    assert convert("npz_to_timm", tmp_path / "model.npz", tmp_path / "timm.safetensors") == 0
    if make:
        make(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert convert(script, tmp_path / source, tmp_path / target) == 1
    printed = capsys.readouterr()
    assert re.search(message, printed.err), printed.err
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert "code that a file should not run" not in printed.out
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
