import dataclasses
import functools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.pytorch import torch
from helpers.tiny import compiled, flatten, random_images

from ppvit_jax.errors import UserError
from ppvit_jax.models import pyramidnet
from ppvit_jax.models.adaptation_network import ELEAdaptNet, LEAdaptNet, TanakaAdaptNet
from ppvit_jax.models.model import from_linen
from ppvit_jax.models.pyramidnet import PyramidNetConfig, build, shake_drop

pytestmark = pytest.mark.slow

nn = torch.nn


class _Shake(torch.autograd.Function):
    """Multiplies by one number forward and by another backward."""

    @staticmethod
    def forward(ctx: Any, branch, forward, backward):
        ctx.backward = backward
        return branch * forward

    @staticmethod
    def backward(ctx: Any, *gradients):
        return gradients[0] * ctx.backward, None, None


class _TorchBlock(nn.Module):
    def __init__(self, before, after, stride, drop):
        super().__init__()
        self.norm_0 = nn.BatchNorm2d(before)
        self.conv_0 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm_1 = nn.BatchNorm2d(after)
        self.conv_1 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm_2 = nn.BatchNorm2d(after)
        self.drop = drop
        self.pool = nn.AvgPool2d(2) if stride == 2 else nn.Identity()
        self.shakes: Any = (1, 1)

    def forward(self, x):
        branch = self.norm_2(self.conv_1(torch.relu(self.norm_1(self.conv_0(self.norm_0(x))))))
        branch = _Shake.apply(branch, *self.shakes) if self.training else branch * (1 - self.drop)
        x = self.pool(x)
        return branch + nn.functional.pad(x, (0, 0, 0, 0, 0, branch.shape[1] - x.shape[1]))


class _TorchPyramidNet(nn.Module):
    """PyramidNet of the original code; in training nothing is dropped unless its blocks get multipliers."""

    def __init__(self, depth, alpha, num_classes, channels=3, final_drop=0.5):
        super().__init__()
        units = (depth - 2) // 6
        widths = [16] + [16 + math.ceil(alpha / (3 * units) * (i + 1)) for i in range(3 * units)]
        self.stem = nn.Conv2d(channels, 16, 3, 1, 1)
        self.stem_norm = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential()
        for i in range(3 * units):
            stride = 2 if i > 0 and i % units == 0 else 1
            self.blocks.append(_TorchBlock(widths[i], widths[i + 1], stride, final_drop * (i + 1) / (3 * units)))
        self.final_norm = nn.BatchNorm2d(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, images):
        x = self.blocks(self.stem_norm(self.stem(images)))
        return self.head(torch.relu(self.final_norm(x)).mean((2, 3)))


def _reference(config, channels=3, dtype=torch.float64):
    """Builds the PyTorch network, with random biases, scales and running statistics too."""
    torch.manual_seed(0)
    reference = _TorchPyramidNet(config.depth, config.alpha, config.num_classes, channels, config.final_drop)
    for name, tensor in reference.state_dict().items():
        if "norm" in name and name.endswith(("weight", "running_var")):
            tensor.uniform_(0.5, 1.5)
        elif "norm" in name and name.endswith(("bias", "running_mean")):
            tensor.normal_(std=0.3)
    return reference.to(dtype)


def _convert(arrays):
    """Converts PyTorch's parameters (or gradients) and statistics, by name."""
    params, statistics = {}, {}
    for name, array in arrays.items():
        *path, leaf = name.replace("blocks.", "block_").split(".")
        target = statistics if leaf.startswith("running") else params
        for part in path:
            target = target.setdefault(part, {})
        if leaf == "weight" and array.ndim > 1:
            target["kernel"] = array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)
        elif leaf != "num_batches_tracked":
            target[{"weight": "scale", "running_mean": "mean", "running_var": "variance"}.get(leaf, leaf)] = array
    return params, statistics


def _images(count, size, seed=0):
    return random_images(count, size, seed) / 255


def _torch(array):
    return torch.tensor(np.asarray(array).transpose(0, 3, 1, 2))


def _state(reference):
    return {name: tensor.numpy().copy() for name, tensor in reference.state_dict().items()}


@functools.partial(jax.jit, static_argnums=0)
def _step(model, params, statistics, images):
    """Returns the gradients of a loss, and the output of a training step."""

    def loss(params):
        output = model.train(params, statistics, images, jax.random.key(0))
        return jnp.square(output.logits - 1).mean(), output

    return jax.grad(loss, has_aux=True)(params)


def _torch_step(reference, images):
    """Returns the logits, and the gradients of the same loss."""
    reference.zero_grad()
    logits = reference(_torch(images))
    (logits - 1).square().mean().backward()
    gradients = {name: parameter.grad.numpy().copy() for name, parameter in reference.named_parameters()}
    return logits.detach().numpy(), _convert(gradients)[0]


def _tiny(**fields: Any) -> PyramidNetConfig:
    return dataclasses.replace(PyramidNetConfig(depth=14, alpha=10, image_size=16, num_classes=3), **fields)


@pytest.mark.parametrize(("depth", "alpha", "size"), [(8, 4, 8), (20, 31, 16)])
def test_logits_in_evaluation_are_those_of_pytorch(depth, alpha, size):
    config, images = _tiny(depth=depth, alpha=alpha, image_size=size), _images(4, size).astype(np.float32)
    reference = _reference(config, dtype=torch.float32).eval()
    params, statistics = _convert(_state(reference))
    ours = compiled(build(config)).apply(params, images, statistics)
    theirs = reference(_torch(images)).detach().numpy()
    assert theirs.std() > 0.1 and ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


_EVALUATION_IN_FLOAT64 = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from ppvit_jax.models.pyramidnet import PyramidNetConfig, build
model = build(PyramidNetConfig(depth=14, alpha=10, image_size=32, num_classes=3, dtype="float64"))
random = np.random.default_rng(0)
def draw(shapes):
    return jax.tree.map(lambda leaf: random.uniform(0.5, 1.5, leaf.shape) / leaf.size**0.5, shapes)
params, statistics = (draw(jax.eval_shape(init, jax.random.key(0))) for init in (model.init, model.init_statistics))
images = random.random((2, 32, 32, 3))
logits = np.asarray(jax.jit(model.apply)(params, images, statistics))
alone = np.concatenate([np.asarray(jax.jit(model.apply)(params, image[None], statistics)) for image in images])
assert logits.dtype == np.float64 and np.allclose(logits, alone, rtol=1e-12, atol=0) and logits.std() > 0
"""


def test_evaluation_in_float64_under_jit_does_not_end_the_process():
    """It runs in a process of its own: a segmentation fault would end all tests (jaxlib 0.10.2, with `nn.avg_pool`)."""
    command = [sys.executable, "-c", _EVALUATION_IN_FLOAT64]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert result.returncode == 0, f"exit status {result.returncode}: {result.stderr[-500:]}"


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-10)])
def test_three_steps_of_training_with_all_gates_on_are_those_of_pytorch(dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        config = _tiny(final_drop=0.0, dtype=dtype)
        model, reference = build(config), _reference(config, dtype=getattr(torch, dtype)).train()
        params, statistics = _convert(_state(reference))
        for i in range(3):
            images = _images(6, 16, seed=i).astype(dtype)
            gradients, ours = _step(model, params, statistics, images)
            theirs, expected = _torch_step(reference, images)
            np.testing.assert_allclose(ours.logits, theirs, rtol=0, atol=tolerance)
            assert ours.penalty == 0
            chex.assert_trees_all_close(gradients, expected, rtol=0, atol=10 * tolerance)
            statistics = ours.statistics
            chex.assert_trees_all_close(statistics, _convert(_state(reference))[1], rtol=0, atol=tolerance)


def _shakes(rng, survival, shape):
    """Measures the forward and backward multipliers of ShakeDrop on a branch of ones."""
    forward, vjp = jax.vjp(lambda ones: shake_drop(ones, rng, survival), jnp.ones(shape))
    return forward, vjp(jnp.ones_like(forward))[0]


def test_training_with_drops_is_that_of_pytorch_with_the_same_multipliers(monkeypatch):
    shakes, survivals = [], []

    def record(branch, rng, survival):
        shakes.append([np.asarray(multiplier) for multiplier in _shakes(rng, survival, (len(branch), 1, 1, 1))])
        survivals.append(survival)
        return shake_drop(branch, rng, survival)

    with jax.enable_x64(True):
        model, images = build(_tiny(depth=8, dtype="float64")), jnp.asarray(_images(6, 16))
        reference = _reference(model.config).train()
        params, statistics = _convert(_state(reference))
        gradients, ours = _step(model, params, statistics, images)
        monkeypatch.setattr(pyramidnet, "shake_drop", record)
        model.train(params, statistics, images, jax.random.key(0))
        np.testing.assert_allclose(survivals, [5 / 6, 4 / 6, 3 / 6])
        # With this key only the first gate is on.
        assert len({float(forward[0, 0, 0, 0]) for forward, _ in shakes}) == 3 and (shakes[0][0] == 1).all()
        for block, shake in zip(reference.blocks, shakes, strict=True):
            block.shakes = [torch.tensor(multiplier) for multiplier in shake]  # pyright: ignore[reportArgumentType]
        theirs, expected = _torch_step(reference, images)
        np.testing.assert_allclose(ours.logits, theirs, atol=1e-10)
        chex.assert_trees_all_close(gradients, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("survival", [0.5, 0.8])
def test_shake_drop_draws_from_the_distributions_of_the_paper(survival):
    rngs = jax.random.split(jax.random.key(0), 4000)
    pair = jax.jit(jax.vmap(lambda rng: _shakes(rng, survival, (3, 2, 2, 4))))(rngs)
    assert all((multipliers == multipliers[..., :1, :1, :1]).all() for multipliers in pair)
    forward, backward = (np.asarray(multipliers[..., 0, 0, 0]) for multipliers in pair)
    on = (forward == 1).all(1)
    # 4 standard deviations of the frequency.
    assert abs(on.mean() - survival) < 4 * math.sqrt(survival * (1 - survival) / len(on))
    assert (backward[on] == 1).all()
    forward, backward = forward[~on], backward[~on]
    for multipliers, low, high in ((forward, -1, 1), (backward, 0, 1)):
        assert multipliers.min() >= low and multipliers.max() <= high
        counts, _ = np.histogram(multipliers, 10, (low, high))
        assert abs(counts / counts.mean() - 1).max() < 0.3
        assert (multipliers[:, 0] != multipliers[:, 1]).all()
        assert abs(np.corrcoef(multipliers.T)[0, 1:]).max() < 0.1
    assert (forward != backward).all()
    assert abs(np.corrcoef(forward[:, 0], backward[:, 0])[0, 1]) < 0.1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shake_drop_with_the_gate_certain(dtype):
    branch = jax.random.normal(jax.random.key(0), (5, 4, 4, 2), dtype)
    for survival in (0.0, 1.0):
        shaken = shake_drop(branch, jax.random.key(1), survival)
        assert shaken.dtype == branch.dtype
        assert bool((shaken == branch).all()) == (survival == 1)


@pytest.mark.parametrize("name", ["le", "le-tanaka", "ele"])
def test_an_adaptation_network_comes_before_the_stem_and_adds_its_penalties(name):
    config = _tiny(depth=8, adaptation_network=name, penalty_weight=2.0, smoothness_weight=3.0)
    networks = {"le": LEAdaptNet(), "le-tanaka": TanakaAdaptNet(), "ele": ELEAdaptNet(2.0, 3.0)}
    adaptation = compiled(from_linen(config, networks[name], (16, 16, 3)))
    images = jnp.asarray(_images(4, 16), jnp.float32)
    params, statistics = adaptation.init(jax.random.key(0)), adaptation.init_statistics(jax.random.key(0))
    # One step makes the estimates of the singular values meaningful.
    _, statistics, _ = adaptation.train(params, statistics, images, jax.random.key(0))
    reference = _reference(config, 32 if name == "le-tanaka" else 16, torch.float32).eval()
    theirs = reference(_torch(adaptation.apply(params, images, statistics))).detach().numpy()
    rest, rest_statistics = _convert(_state(reference))
    whole = rest | {"adaptation": params}, rest_statistics | {"adaptation": statistics}
    model = compiled(build(config))
    np.testing.assert_allclose(model.apply(whole[0], images, whole[1]), theirs, rtol=0, atol=1e-4)
    expected = adaptation.train(params, statistics, images, jax.random.key(0)).penalty
    penalty = jax.jit(lambda params: model.train(params, whole[1], images, jax.random.key(0)).penalty)(whole[0])
    assert (penalty > 0) == (name == "ele")
    np.testing.assert_allclose(penalty, expected, rtol=1e-5)


def test_bfloat16_computes_roughly_the_same_and_returns_float32():
    precise, rough = (_tiny(depth=8, image_size=8, final_drop=0.0, dtype=dtype) for dtype in ("float32", "bfloat16"))
    state = _convert(_state(_reference(precise, dtype=torch.float32)))
    images = jnp.asarray(_images(6, 8), jnp.float32)
    expected, output = (jax.jit(build(c).train)(*state, images, jax.random.key(0)) for c in (precise, rough))
    assert output.logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(output.statistics)} == {jnp.dtype("float32")}
    assert 0 < abs(expected.logits - output.logits).max() < 0.1 * abs(expected.logits).max()


@pytest.mark.parametrize(
    ("name", "millions", "channels", "adaptation"),
    [
        ("none", 28.5, 3, 0),
        ("le", 28.5, 16, 48 * 256 + 2 * 256),
        ("le-tanaka", 28.5, 32, 6 + 49 * 48 + 96 + 49 * 48 + 96 + 49 * 512),
        ("ele", 29.3, 16, 64 * (48 * 256 + 2 * 256) + 64 * 64),
    ],
)
def test_parameter_counts_are_the_published_ones(name, millions, channels, adaptation):
    config = PyramidNetConfig(image_size=32, num_classes=10, adaptation_network=name)
    shapes = jax.eval_shape(build(config).init, jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    with torch.device("meta"):
        reference = _TorchPyramidNet(110, 270, 10, channels)
    assert count == sum(parameter.numel() for parameter in reference.parameters()) + adaptation
    assert round(count / 1e6, 1) == millions
    assert config.widths == tuple(16 + 5 * (i + 1) for i in range(54)) and config.patch_size == 0


def test_a_new_models_convolutions_are_he_normal_by_fan_out():
    # This random number generator compiles faster.
    params = jax.jit(build(_tiny(depth=8, alpha=100)).init)(jax.random.key(0, impl="rbg"))
    for name, leaf in flatten(params).items():
        if "conv" in name or name == "stem/kernel":
            np.testing.assert_allclose(leaf.std(), math.sqrt(2 / (9 * leaf.shape[-1])), rtol=0.15, err_msg=name)
    # The stem's bias keeps PyTorch's default, uniform up to 1 / sqrt(fan in); 16 values.
    bias = params["stem"]["bias"] * math.sqrt(9 * 3)
    assert 0.7 < abs(bias).max() <= 1 and bias.min() < -0.3 and bias.max() > 0.3 and not params["head"]["bias"].any()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("depth", 18, r"cannot have depth 18: use 6n \+ 2"),
        ("depth", 2, r"cannot have depth 2: use 6n \+ 2"),
        ("image_size", 18, "cannot have image size 18: use a multiple of 4"),
        ("adaptation_network", "etc", "unknown adaptation network 'etc': use one of none, le, le-tanaka, ele"),
    ],
)
def test_shapes_that_no_network_has_are_named(field, value, message):
    with pytest.raises(UserError, match=message):
        build(_tiny(**{field: value}))
