"""Conversion of big_vision's `.npz`, compared with timm's own loader of these files."""

import re

import numpy as np
import pytest
from helpers.convert import arrays, convert, logits, tiny_vit
from helpers.pytorch import timm, torch
from helpers.tiny import flatten, random_images, random_params

from ppvit_jax import checkpoint

CONFIG = tiny_vit()
_RENAMED = (
    ("LayerNorm_2", "LayerNorm_1"),
    ("MlpBlock_3", "MlpBlock_0"),
    ("MultiHeadDotProductAttention_1", "MultiHeadDotProductAttention_0"),
)


def _big_vision(stacked=False, prefix="params/"):
    """Returns random weights by the names of big_vision/models/vit.py, pool_type="tok"."""
    named = {}
    for name, array in flatten(random_params(CONFIG)).items():
        if name == "Transformer/posembed_input/pos_embedding":
            named["pos_embedding"] = array[:, 1:]
            continue
        for google, theirs in _RENAMED:
            name = name.replace(google, theirs)
        named[name] = array
    if stacked:
        blocks = [name for name in named if "encoderblock_0/" in name]
        for name in blocks:
            parts = [named.pop(name.replace("_0/", f"_{number}/", 1)) for number in range(CONFIG.layers)]
            named[name.replace("encoderblock_0/", "encoderblock/")] = np.stack(parts)
    return {prefix + name: array for name, array in named.items()}


def _save(path, named):
    with path.open("wb") as file:
        np.savez(file, **named)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("prefix", ["params/", "params/img/", ""])
def test_the_model_computes_what_timm_makes_of_the_same_file(tmp_path, stacked, prefix):
    source = _save(tmp_path / "big_vision.npz", _big_vision(stacked, prefix))
    assert convert("big_vision_to_npz", source, tmp_path / "model.npz") == 0
    found, metadata = arrays(tmp_path / "model.npz")
    assert (metadata.model, metadata.image_size) == ("ViT-Ti/16", 64)
    # no_embed_class: the position embedding is added before the class token is put in front, as big_vision does.
    model = timm.create_model(
        "vit_tiny_patch16_224", num_classes=5, img_size=64, act_layer="gelu_tanh", no_embed_class=True
    ).eval()
    # Only newer versions of timm load stacked blocks, and the prefixes "params/" and "params/img/".
    reference = source
    if stacked or not prefix:
        reference = _save(tmp_path / "plain.npz", _big_vision())
    model.load_pretrained(str(reference))
    images = random_images(3, 64)
    with torch.no_grad():
        theirs = model(torch.tensor(images.astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1)).numpy()
    assert theirs.std() > 0.1
    ours = logits(checkpoint.to_params(found, CONFIG, keep_head=True), CONFIG, images)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def _without(named, *names):
    return {name: array for name, array in named.items() if name.removeprefix("params/") not in names}


MISTAKES = {
    "an attention head pools": (
        lambda n: n | {"params/MAPHead_0/probe": np.zeros((1, 1, 192))}, "pools by an attention head",
    ),
    "the average pools": (lambda n: _without(n, "cls"), "has no class token"),
    "a fixed position embedding": (lambda n: _without(n, "pos_embedding"), "with a learned position embedding"),
    "vision_transformer's own file": (lambda n: flatten(random_params(CONFIG)), "not a Vision .* of big_vision"),
    "an array less": (lambda n: _without(n, "head/bias"), "does not fit the model: missing head/bias"),
    "an array more": (lambda n: n | {"params/t": np.zeros(1)}, "extra t"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_other_files_give_one_line(tmp_path, capsys, mistake):
    change, message = MISTAKES[mistake]
    source = _save(tmp_path / "big_vision.npz", change(_big_vision()))
    assert convert("big_vision_to_npz", source, tmp_path / "model.npz") == 1
    errors = capsys.readouterr().err
    assert re.search(message, errors) and errors.count("\n") == 1, errors
    assert not (tmp_path / "model.npz").exists()
