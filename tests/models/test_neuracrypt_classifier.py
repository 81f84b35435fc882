import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.pytorch import torch
from helpers.tiny import flatten

from ppvit_jax.errors import UserError
from ppvit_jax.models.neuracrypt import NeuraCryptConfig, build

SMALL = NeuraCryptConfig(image_size=32, num_classes=5, encoding_patch_size=8, width=48, layers=2, heads=4)
CONFIGS = [SMALL, dataclasses.replace(SMALL, image_size=8, layers=1, heads=1, mlp_ratio=3)]


class _DeepViT(torch.nn.Module):
    """Classifier with PyTorch's layers and our names; attention maps are [batch, head, query, key]."""

    def __init__(self, config):
        super().__init__()
        width, inner = config.width, config.heads * 64
        self.config = config
        self.class_token = torch.nn.Parameter(torch.randn(1, 1, width))
        self.layers = torch.nn.ModuleList()
        for _ in range(config.layers):
            parts = {
                "attention_norm": torch.nn.LayerNorm(width),
                "query": torch.nn.Linear(width, inner, bias=False),
                "key": torch.nn.Linear(width, inner, bias=False),
                "value": torch.nn.Linear(width, inner, bias=False),
                "attention_heads": torch.nn.LayerNorm(config.heads),
                "out": torch.nn.Linear(inner, width),
                "mlp_norm": torch.nn.LayerNorm(width),
                "mlp_in": torch.nn.Linear(width, width * config.mlp_ratio),
                "mlp_out": torch.nn.Linear(width * config.mlp_ratio, width),
            }
            layer = torch.nn.ModuleDict(parts)
            layer.register_parameter("mixing", torch.nn.Parameter(torch.randn(config.heads, config.heads)))
            self.layers.append(layer)
        self.norm = torch.nn.LayerNorm(width)
        self.head = torch.nn.Linear(width, config.num_classes)

    def forward(self, x):
        batch, heads = x.shape[0], self.config.heads
        x = torch.cat([self.class_token.expand(batch, -1, -1), x], dim=1)
        layer: Any
        for layer in self.layers:
            y = layer["attention_norm"](x)
            query, key, value = (
                layer[name](y).view(batch, -1, heads, 64).permute(0, 2, 1, 3) for name in ("query", "key", "value")
            )
            attention = torch.softmax(query @ key.transpose(-1, -2) / 8, dim=-1)
            # A 1x1 convolution over the heads: its weight is [output, input, 1, 1].
            maps = torch.nn.functional.conv2d(attention, layer.mixing.T[:, :, None, None])
            maps = layer["attention_heads"](maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            x = x + layer["out"]((maps @ value).transpose(1, 2).reshape(batch, -1, heads * 64))
            y = layer["mlp_norm"](x)
            x = x + layer["mlp_out"](torch.nn.functional.gelu(layer["mlp_in"](y)))
        return self.head(self.norm(x[:, 0]))


def _our_names(model, gradients=False):
    """Converts PyTorch's parameters, or their gradients, to our tree."""
    config, arrays = model.config, {}
    for name, parameter in model.named_parameters():
        value = (parameter.grad if gradients else parameter).detach().numpy()
        *path, last = name.split(".")
        if path and path[0] == "layers":
            path = [f"layer_{path[1]}", *path[2:]]
            if last == "mixing":
                path.append("attention")
            elif path[1] == "attention_heads":
                path[1:] = ["attention", "norm"]
            elif path[1] in ("query", "key", "value"):
                path.insert(1, "attention")
                value = value.T.reshape(config.width, config.heads, 64).copy()
            elif path[1] == "out":
                path.insert(1, "attention")
                value = value.T.reshape(config.heads, 64, config.width).copy() if last == "weight" else value
        if last == "weight":
            last = "scale" if path[-1].endswith("norm") else "kernel"
            value = value.T if last == "kernel" and value.ndim == 2 else value
        arrays["/".join([*path, last])] = value
    return unflatten_dict(arrays, sep="/")


def _model_and_reference(config):
    torch.manual_seed(0)
    reference = _DeepViT(config)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if "norm" in name or "heads" in name:
                parameter.add_(0.2 * torch.randn(parameter.shape))
    if config.dtype == "float64":
        reference = reference.double()
    encodings = np.random.default_rng(0).standard_normal((3, config.patches, config.width)).astype(config.dtype)
    return build(config), reference, encodings


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-11)])
def test_logits_and_gradients_are_those_of_pytorch(config, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        model, reference, encodings = _model_and_reference(dataclasses.replace(config, dtype=dtype))
        params = _our_names(reference)
        labels = np.arange(3) % config.num_classes

        def loss(params):
            output = model.train(params, {}, jnp.asarray(encodings), jax.random.key(0))
            return -jax.nn.log_softmax(output.logits)[jnp.arange(3), labels].mean(), output

        (_, output), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        evaluated = jax.jit(model.apply)(params, encodings, {})
        assert output.logits.dtype == evaluated.dtype == np.dtype(dtype)
    logits = reference(torch.tensor(encodings))
    torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).backward()
    for ours in (output.logits, evaluated):
        np.testing.assert_allclose(ours, logits.detach().numpy(), rtol=0, atol=tolerance)
    assert (output.statistics, float(output.penalty)) == ({}, 0)
    theirs = flatten(_our_names(reference, gradients=True))
    assert flatten(gradient).keys() == theirs.keys()
    for name, value in flatten(gradient).items():
        scale = abs(theirs[name]).max()
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=10 * tolerance * max(scale, 1e-2), err_msg=name)


@pytest.mark.slow
def test_logits_do_not_depend_on_the_order_of_patches():
    model, reference, encodings = _model_and_reference(SMALL)
    params = _our_names(reference)
    order = np.random.default_rng(1).permutation(SMALL.patches)
    apply = jax.jit(model.apply)
    logits = apply(params, encodings)
    np.testing.assert_allclose(apply(params, encodings[:, order]), logits, rtol=0, atol=1e-5)
    assert abs(logits - logits[::-1]).max() > 0.01


@pytest.mark.slow
def test_a_new_model_has_the_parameters_of_pytorch_distributed_alike():
    model, reference, _ = _model_and_reference(SMALL)
    torch.manual_seed(1)
    theirs = flatten(_our_names(_DeepViT(SMALL)))
    init = jax.jit(model.init)
    ours = flatten(init(jax.random.key(0)))
    assert {name: array.shape for name, array in ours.items()} == {name: array.shape for name, array in theirs.items()}
    for name, array in theirs.items():
        if array.std() == 0:
            np.testing.assert_array_equal(ours[name], array, err_msg=name)
        elif array.size > 1000:
            np.testing.assert_allclose(ours[name].std(), array.std(), rtol=0.05, err_msg=name)
            np.testing.assert_allclose(abs(ours[name]).max(), abs(array).max(), rtol=0.05, err_msg=name)
        elif name.endswith("bias"):
            np.testing.assert_allclose(abs(ours[name]).max(), abs(array).max(), rtol=0.5, err_msg=name)
    other = flatten(init(jax.random.key(1)))
    assert (ours["head/kernel"] != other["head/kernel"]).any()
    assert jax.eval_shape(model.init_statistics, jax.random.key(0)) == {}
    assert sum(array.size for array in ours.values()) == sum(p.numel() for p in reference.parameters())


def test_size_at_the_published_shape():
    config = NeuraCryptConfig(image_size=256, num_classes=2)
    assert (config.patch_size, config.patches) == (16, 256)
    shapes = jax.eval_shape(build(config).init, jax.random.key(0))
    attention = 4 * 2048 * 512 + 2048 + 8 * 8 + 2 * 8
    mlp = 2 * 2048 * 4096 + 4096 + 2048
    rest = 2048 + 3 * 2 * 2048 + 2 * 2048 + 2
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == attention + mlp + rest


@pytest.mark.slow
def test_bfloat16_computes_roughly_the_same_and_returns_float32():
    model, reference, encodings = _model_and_reference(SMALL)
    params = _our_names(reference)
    precise = jax.jit(model.apply)(params, encodings)
    rough = jax.jit(build(dataclasses.replace(SMALL, dtype="bfloat16")).apply)(params, encodings)
    assert (precise.dtype, rough.dtype) == (jnp.float32, jnp.float32)
    assert 0 < abs(precise - rough).max() < 0.1 * abs(precise).max()


@pytest.mark.parametrize("size", [0, 12, -8])
def test_an_image_size_that_is_not_a_multiple_is_named(size):
    with pytest.raises(UserError, match=f"image size {size} is not a multiple of the patch size 8"):
        dataclasses.replace(SMALL, image_size=size)
