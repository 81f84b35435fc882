import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from tiny import random_images

from checkpoints_convert.timm_to_npz import main
from ppvit_jax import checkpoint, models
from ppvit_jax.main import run_command

HIDDEN, LAYERS, HEADS, MLP, PATCH, SIZE, CLASSES = 192, 12, 3, 768, 16, 64, 5  # ViT-Ti/16


def _state(pre_logits=False, head=True):
    """Random weights by timm's names and shapes."""
    random = np.random.default_rng(0)

    def dense(name, inputs, outputs):
        weight = random.standard_normal((outputs, inputs)) * inputs**-0.5
        return {f"{name}.weight": weight, f"{name}.bias": random.standard_normal(outputs) * 0.2}

    def norm(name):
        return {
            f"{name}.weight": 1 + 0.2 * random.standard_normal(HIDDEN),
            f"{name}.bias": random.standard_normal(HIDDEN),
        }

    state = {
        "cls_token": random.standard_normal((1, 1, HIDDEN)),
        "pos_embed": random.standard_normal((1, 1 + (SIZE // PATCH) ** 2, HIDDEN)),
        "patch_embed.proj.weight": random.standard_normal((HIDDEN, 3, PATCH, PATCH)) * 0.03,
        "patch_embed.proj.bias": random.standard_normal(HIDDEN),
        **norm("norm"),
    }
    for i in range(LAYERS):
        block = f"blocks.{i}"
        state |= norm(f"{block}.norm1") | norm(f"{block}.norm2")
        state |= dense(f"{block}.attn.qkv", HIDDEN, 3 * HIDDEN) | dense(f"{block}.attn.proj", HIDDEN, HIDDEN)
        state |= dense(f"{block}.mlp.fc1", HIDDEN, MLP) | dense(f"{block}.mlp.fc2", MLP, HIDDEN)
    if pre_logits:
        state |= dense("pre_logits.fc", HIDDEN, HIDDEN)
    if head:
        state |= dense("head", HIDDEN, CLASSES)
    return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in state.items()}


def _reference(state, images):
    """Logits of timm's Vision Transformer, written out in PyTorch with the original's tanh GELU."""
    weights = {name: torch.tensor(tensor) for name, tensor in state.items()}

    def dense(x, name):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, (HIDDEN,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    pixels = torch.tensor(images.transpose(0, 3, 1, 2))
    x = F.conv2d(pixels, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=PATCH)
    x = torch.cat([weights["cls_token"].expand(len(images), -1, -1), x.flatten(2).mT], 1) + weights["pos_embed"]
    for i in range(LAYERS):
        y = dense(norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv")
        query, key, value = y.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + dense(y, f"blocks.{i}.attn.proj")
        y = F.gelu(dense(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1"), approximate="tanh")
        x = x + dense(y, f"blocks.{i}.mlp.fc2")
    x = norm(x, "norm")[:, 0]
    if "pre_logits.fc.weight" in weights:
        x = torch.tanh(dense(x, "pre_logits.fc"))
    return dense(x, "head").numpy()


def _convert(tmp_path, state):
    save_file(state, source := tmp_path / "model.safetensors")
    target = tmp_path / "model.npz"
    assert run_command(main, [str(source), str(target)]) == 0
    return checkpoint.read(target)[0]


@pytest.mark.parametrize("pre_logits", [False, True])
def test_logits_are_those_of_timm(tmp_path, pre_logits):
    state = _state(pre_logits)
    arrays = _convert(tmp_path, state)
    config = models.parse_name(
        "ViT-Ti/16", image_size=SIZE, num_classes=CLASSES, representation_size=HIDDEN if pre_logits else None
    )
    params = checkpoint.to_params(arrays, config, keep_head=True)
    images = (random_images(2, SIZE) / 127.5 - 1).astype(np.float32)
    expected = _reference(state, images)
    assert expected.std() > 0.1
    np.testing.assert_allclose(jax.jit(models.build(config).apply)(params, images), expected, rtol=0, atol=1e-4)


def test_a_file_without_a_head_can_be_tuned(tmp_path):
    arrays = _convert(tmp_path, _state(head=False))
    config = models.parse_name("ViT-Ti/16", image_size=224, num_classes=7)
    params = checkpoint.to_params(arrays, config, keep_head=False)
    assert params["head"]["kernel"].shape == (HIDDEN, 7)


def test_mistakes_give_one_line_and_write_nothing(tmp_path, capsys):
    save_file(_state(), good := tmp_path / "good.safetensors")
    save_file(_state() | {"blocks.0.ls1.gamma": np.ones(3, np.float32)}, other := tmp_path / "other.safetensors")
    save_file({"conv.weight": np.ones(3, np.float32)}, convolution := tmp_path / "convolution.safetensors")
    (damaged := tmp_path / "damaged.safetensors").write_bytes(good.read_bytes()[:1000])
    (existing := tmp_path / "existing.npz").write_text("mine")
    target = tmp_path / "model.npz"
    for source, where, message in (
        (other, target, "it has also blocks.0.ls1.gamma"),
        (convolution, target, "not a Vision Transformer of size"),
        (damaged, target, "as safetensors"),
        (tmp_path / "missing.safetensors", target, "as safetensors"),
        (good, existing, "exists: choose another name"),
        (good, tmp_path / "no" / "folder.npz", "cannot write"),
    ):
        assert run_command(main, [str(source), str(where)]) == 1
        errors = capsys.readouterr().err
        assert message in errors and errors.count("\n") == 1
    assert existing.read_text() == "mine" and not target.exists()
