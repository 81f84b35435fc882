"""Adaptation networks compared with PyTorch, which loops over the blocks as the original code does."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.pytorch import torch
from helpers.tiny import compiled, flatten, tiny_model
from scipy import stats

from ppvit_jax.models.adaptation_network import ELEAdaptNet, LEAdaptNet, TanakaAdaptNet, smoothness_penalty
from ppvit_jax.models.layers import permutation_penalty
from ppvit_jax.models.model import from_linen

nn = torch.nn
functional = torch.nn.functional


def _blocks(images):
    """Splits [batch, 3, size, size] into row-major blocks of [batch, 3, 4, 4]."""
    side = images.shape[-1] // 4
    return [images[:, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] for i in range(side) for j in range(side)]


def _together(blocks):
    """Joins blocks of [batch, channels * 16, 1, 1] into [batch, channels, size, size]."""
    side = round(len(blocks) ** 0.5)
    rows = [torch.cat(blocks[side * i : side * i + side], dim=3) for i in range(side)]
    return functional.pixel_shuffle(torch.cat(rows, dim=2), 4)


class _TorchLE(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.conv = nn.Conv2d(3, 256, 4, 4, bias=False)
        self.norm = nn.BatchNorm2d(256)

    def forward(self, images):
        return _together([functional.leaky_relu(self.norm(self.conv(b)), 0.1) for b in _blocks(images)])


class _TorchTanaka(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layers = nn.Sequential(
            # Keras' constants.
            nn.BatchNorm2d(3, eps=1e-3, momentum=1 - 0.99),
            nn.Conv2d(3, 48, 4, 4),
            nn.ReLU(),
            nn.BatchNorm2d(48, eps=1e-3, momentum=1 - 0.99),
            nn.Conv2d(48, 48, 1),
            nn.ReLU(),
            nn.BatchNorm2d(48, eps=1e-3, momentum=1 - 0.99),
            nn.Conv2d(48, 512, 1),
            nn.PixelShuffle(4),
        )

    def forward(self, images):
        return self.layers(images)


class _TorchELE(nn.Module):
    def __init__(self, size):
        super().__init__()
        count = (size // 4) ** 2
        self.convs = nn.ModuleList([nn.utils.spectral_norm(nn.Conv2d(3, 256, 4, 4, bias=False)) for _ in range(count)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(256) for _ in range(count)])
        self.mixing = nn.Parameter(torch.randn(count, count))

    def forward(self, images):
        columns = []
        for block, conv, norm in zip(_blocks(images), self.convs, self.norms, strict=True):
            columns.append(functional.leaky_relu(norm(conv(block)), 0.2).flatten(1))
        mixed = torch.stack(columns, dim=2) @ self.mixing
        side = round(len(columns) ** 0.5)
        return functional.pixel_shuffle(mixed.view(len(images), 256, side, side), 4)

    def penalty(self, output):
        count, size = len(self.mixing), output.shape[-1]
        spread = sum(line.abs().sum() - line.norm() for line in [*self.mixing, *self.mixing.T])
        differences = sum(
            ((output[:, :3, i + 1, j] - output[:, :3, i, j]) ** 2).sum()
            + ((output[:, :3, i, j + 1] - output[:, :3, i, j]) ** 2).sum()
            for i in range(size - 1)
            for j in range(size - 1)
        )
        smoothness = differences / ((size - 1) * size * 16) / len(output)
        return 1e-3 * spread / count**2 + 0.1 * smoothness


REFERENCES = {LEAdaptNet: _TorchLE, TanakaAdaptNet: _TorchTanaka, ELEAdaptNet: _TorchELE}


def _reference(network, size, dtype=torch.float64):
    """Builds the PyTorch network, with random biases, scales and running statistics too."""
    torch.manual_seed(0)
    reference = REFERENCES[network](size).to(dtype)
    norms = [name for name, module in reference.named_modules() if isinstance(module, nn.BatchNorm2d)]
    for name, tensor in reference.state_dict().items():
        if name.rpartition(".")[0] in norms:
            if name.endswith(("weight", "running_var")):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith(("bias", "running_mean")):
                tensor.normal_()
    return reference


def _rows(weight):
    """Converts a kernel [outputs, channel, row, column] to [(row, column, channel), outputs]."""
    return weight.transpose(2, 3, 1, 0).reshape(-1, len(weight))


def _channels_last(vector):
    """Reorders a right singular vector [(channel, row, column)] to [(row, column, channel)]."""
    return vector.reshape(3, 4, 4).transpose(1, 2, 0).reshape(-1)


def _params(network, arrays):
    """Converts PyTorch's parameters (or their gradients), by name."""
    if network is LEAdaptNet:
        return {
            "projection": {"kernel": _rows(arrays["conv.weight"])},
            "norm": {"scale": arrays["norm.weight"], "bias": arrays["norm.bias"]},
        }
    if network is TanakaAdaptNet:
        params = {}
        for i in range(3):
            norm, dense = f"layers.{3 * i}", f"layers.{3 * i + 1}"
            params[f"norm_{i}"] = {"scale": arrays[f"{norm}.weight"], "bias": arrays[f"{norm}.bias"]}
            params[f"dense_{i}"] = {"kernel": _rows(arrays[f"{dense}.weight"]), "bias": arrays[f"{dense}.bias"]}
        return params
    blocks = range(len(arrays["mixing"]))
    return {
        "projection": {"kernel": np.stack([_rows(arrays[f"convs.{i}.weight_orig"]) for i in blocks])},
        "norm": {
            "scale": np.stack([arrays[f"norms.{i}.weight"] for i in blocks]),
            "bias": np.stack([arrays[f"norms.{i}.bias"] for i in blocks]),
        },
        "mixing": arrays["mixing"],
    }


def _statistics(network, arrays):
    if network is not ELEAdaptNet:
        names = {"norm": "norm"} if network is LEAdaptNet else {f"norm_{i}": f"layers.{3 * i}" for i in range(3)}
        both = {"mean": "running_mean", "variance": "running_var"}
        return {ours: {k: arrays[f"{theirs}.{v}"] for k, v in both.items()} for ours, theirs in names.items()}
    blocks = range(len(arrays["mixing"]))
    return {
        "projection": {
            "u": np.stack([arrays[f"convs.{i}.weight_u"] for i in blocks]),
            "v": np.stack([_channels_last(arrays[f"convs.{i}.weight_v"]) for i in blocks]),
        },
        "norm": {
            "mean": np.stack([arrays[f"norms.{i}.running_mean"] for i in blocks]),
            "variance": np.stack([arrays[f"norms.{i}.running_var"] for i in blocks]),
        },
    }


def _state(reference):
    return {name: tensor.numpy().copy() for name, tensor in reference.state_dict().items()}


def _images(count, size, seed=0):
    return np.random.default_rng(seed).random((count, size, size, 3))


def _run(reference, images):
    parameter = next(reference.parameters())
    return reference(torch.tensor(images.transpose(0, 3, 1, 2), dtype=parameter.dtype))


@pytest.mark.slow
@pytest.mark.parametrize("network", REFERENCES)
@pytest.mark.parametrize("size", [4, 12, 32])
def test_float32_in_training_and_evaluation_is_close_to_pytorch(network, size):
    reference, images = _reference(network, size, torch.float32), _images(6, size).astype(np.float32)
    model = compiled(from_linen(tiny_model(), network(), (size, size, 3)))
    with torch.no_grad():
        state = _state(reference)
        output = model.train(
            _params(network, state), _statistics(network, state), jnp.asarray(images), jax.random.key(0)
        )
        theirs = _run(reference.train(), images).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(output.logits, theirs, rtol=0, atol=1e-4)
        state = _state(reference)
        chex.assert_trees_all_close(output.statistics, _statistics(network, state), rtol=0, atol=1e-4)

        ours = model.apply(_params(network, state), images, _statistics(network, state))
        theirs = _run(reference.eval(), images).numpy().transpose(0, 2, 3, 1)
        assert ours.dtype == jnp.float32 and ours.shape == (6, size, size, 32 if network is TanakaAdaptNet else 16)
        assert theirs.std() > 0.1
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("network", REFERENCES)
def test_three_steps_of_training_are_those_of_pytorch(network):
    """Compares outputs, penalty, gradients and statistics; the parameters change between the steps."""
    size = 12
    with jax.enable_x64(True):
        reference = _reference(network, size).train()
        params, statistics = _params(network, _state(reference)), _statistics(network, _state(reference))
        model = compiled(from_linen(tiny_model(), network(dtype=jnp.float64), (size, size, 3)))

        @jax.jit
        def step(params, statistics, images, weights):
            def loss(params):
                output = model.train(params, statistics, images, jax.random.key(0))
                return (output.logits * weights).mean() + output.penalty, output

            return jax.grad(loss, has_aux=True)(params)

        for i in range(3):
            images = _images(5, size, seed=i)
            channels = 32 if network is TanakaAdaptNet else 16
            weights = np.random.default_rng(10 + i).standard_normal((5, size, size, channels))
            gradients, ours = step(params, statistics, images, weights)
            statistics = ours.statistics

            reference.zero_grad()
            theirs = _run(reference, images)
            penalty = reference.penalty(theirs) if network is ELEAdaptNet else torch.zeros(())
            ((theirs * torch.tensor(weights.transpose(0, 3, 1, 2))).mean() + penalty).backward()
            np.testing.assert_allclose(ours.logits, theirs.detach().numpy().transpose(0, 2, 3, 1), atol=1e-9)
            np.testing.assert_allclose(ours.penalty, penalty.detach().numpy(), atol=1e-12)
            assert (ours.penalty > 0) == (network is ELEAdaptNet)
            expected = _params(network, {n: p.grad.numpy() for n, p in reference.named_parameters()})
            chex.assert_trees_all_close(gradients, expected, rtol=0, atol=1e-9)
            chex.assert_trees_all_close(statistics, _statistics(network, _state(reference)), rtol=0, atol=1e-9)
            assert all(abs(leaf).max() > 1e-6 for leaf in flatten(gradients).values())

            with torch.no_grad():
                for parameter in reference.parameters():
                    parameter -= 2 * parameter.grad
            params = jax.tree.map(lambda p, g: p - 2 * g, params, gradients)
        images = _images(5, size)
        with torch.no_grad():
            theirs = _run(reference.eval(), images).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(model.apply(params, images, statistics), theirs, atol=1e-8)


@pytest.mark.slow
def test_the_mixings_penalty_is_zero_for_a_permutation_and_has_a_finite_gradient_at_zero():
    permutation = jnp.eye(6)[np.random.default_rng(0).permutation(6)]
    assert abs(permutation_penalty(permutation)) < 1e-6
    np.testing.assert_allclose(permutation_penalty(jnp.ones((4, 4))), 8 * (4 - 2) / 16, rtol=1e-6)
    assert np.isfinite(jax.jit(jax.grad(permutation_penalty))(permutation.at[0].set(0))).all()


def test_the_smoothness_penalty_sees_only_three_channels_without_the_last_row_and_column():
    random = np.random.default_rng(0).random((2, 8, 8, 16)).astype(np.float32)
    penalty = smoothness_penalty(jnp.asarray(random))
    random[..., 3:] = 0
    random[:, -1, -1] = 9
    np.testing.assert_allclose(smoothness_penalty(jnp.asarray(random)), penalty, rtol=1e-6)
    single = np.zeros((2, 8, 8, 16), np.float32)
    single[0, 3, 3, 2] = 2
    np.testing.assert_allclose(smoothness_penalty(jnp.asarray(single)), 4 * 4 / (7 * 8 * 16) / 2, rtol=1e-6)


@pytest.mark.slow
def test_penalties_follow_their_weights():
    model = compiled(from_linen(tiny_model(), ELEAdaptNet(), (8, 8, 3)))
    params, statistics = model.init(jax.random.key(0)), model.init_statistics(jax.random.key(1))
    images = jnp.asarray(_images(3, 8), jnp.float32)

    def penalty(*weights):
        model = compiled(from_linen(tiny_model(), ELEAdaptNet(*weights), (8, 8, 3)))
        return float(model.train(params, statistics, images, jax.random.key(2)).penalty)

    mixing, smoothness = penalty(1.0, 0.0), penalty(0.0, 1.0)
    assert mixing > 0 and smoothness > 0 and penalty(0.0, 0.0) == 0
    np.testing.assert_allclose(penalty(2.0, 3.0), 2 * mixing + 3 * smoothness, rtol=1e-5)


def _variables(network, size):
    images = jnp.zeros((1, size, size, 3))
    # This random number generator compiles faster.
    return jax.jit(lambda rng: network.init({"params": rng}, images, train=False))(jax.random.key(0, impl="rbg"))


def _from(kernel, distribution):
    """Tells if the values come from a distribution, or from that of other values (Kolmogorov and Smirnov)."""
    compare: Any = stats.ks_2samp if isinstance(distribution, np.ndarray) else stats.kstest
    return compare(np.ravel(kernel), distribution).pvalue > 1e-3


@pytest.mark.slow
def test_madonos_kernels_start_as_the_loop_of_the_original_code_sets_them():
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 256, 4, 4, bias=False), nn.utils.spectral_norm(nn.Conv2d(3, 256, 4, 4, bias=False))]
    for layer in convolutions:
        fan = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
        layer.weight.data.normal_(0, (2.0 / fan) ** 0.5)
    # The normalized convolution has its parameter under another name, which the loop reaches all the same.
    theirs = [convolutions[0].weight, convolutions[1].weight_orig]
    theirs = [weight.detach().numpy().ravel() for weight in theirs]
    assert _from(theirs[0], theirs[1])
    ours = [_variables(network, 8)["params"]["projection"]["kernel"] for network in (LEAdaptNet(), ELEAdaptNet())]
    assert [kernel.shape for kernel in ours] == [(48, 256), (4, 48, 256)]
    for kernel in ours:
        assert _from(kernel, theirs[1]) and _from(kernel, stats.norm(0, (2 / 4096) ** 0.5).cdf)
        # It is not uniform, and not truncated.
        assert abs(kernel).max() > 3.5 * kernel.std()
    assert not np.allclose(ours[1][0], ours[1][1])


@pytest.mark.slow
def test_tanakas_layers_start_as_keras_layers_do():
    variables = _variables(TanakaAdaptNet(), 64)
    for name, inputs in (("dense_0", 48), ("dense_1", 48), ("dense_2", 48)):
        layer = variables["params"][name]
        # Keras' he_normal: a normal distribution truncated at two standard deviations, with the variance 2 / inputs.
        sigma = (2 / inputs) ** 0.5 / 0.87962566103423978
        assert _from(layer["kernel"], stats.truncnorm(-2, 2, 0, sigma).cdf)
        np.testing.assert_allclose(layer["kernel"].std(), (2 / inputs) ** 0.5, rtol=0.05)
        assert layer["kernel"].shape[0] == inputs and layer["bias"].shape == layer["kernel"].shape[1:]
        assert not layer["bias"].any()


@pytest.mark.slow
def test_tanakas_running_statistics_and_epsilon_are_keras():
    network, variables = TanakaAdaptNet(), _variables(TanakaAdaptNet(), 4)
    images = jnp.asarray(_images(5, 4), jnp.float32)
    train = jax.jit(lambda images: network.apply(variables, images, train=True, mutable=["statistics"])[1])
    moved, values = train(images)["statistics"]["norm_0"], np.asarray(images, np.float64).reshape(-1, 3)
    np.testing.assert_allclose(moved["mean"], 0.01 * values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moved["variance"], 0.99 + 0.01 * values.var(0, ddof=1), rtol=1e-5)

    # A variance far below epsilon: features 0.001 away from the mean become 0.001 / sqrt(0.001).
    still = variables["statistics"]["norm_0"] | {"variance": jnp.zeros(3)}
    still = variables | {"statistics": variables["statistics"] | {"norm_0": still}}
    evaluate = jax.jit(lambda images: network.apply(still, images, train=False, capture_intermediates=True)[1])
    (normalized,) = evaluate(jnp.full((1, 4, 4, 3), 1e-3))["intermediates"]["norm_0"]["__call__"]
    np.testing.assert_allclose(normalized, 1e-3 / 1e-3**0.5, rtol=1e-5)


@pytest.mark.slow
def test_the_mixing_matrix_starts_as_pytorchs_linear_layer_and_directions_have_length_one():
    model = from_linen(tiny_model(), ELEAdaptNet(), (32, 32, 3))
    params, statistics = jax.jit(model.init)(jax.random.key(0)), jax.jit(model.init_statistics)(jax.random.key(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((params, statistics)))
    assert 0.99 < abs(params["mixing"]).max() * 64**0.5 <= 1
    np.testing.assert_allclose(params["mixing"].std() * 64**0.5, 3**-0.5, rtol=0.05)
    for vectors in statistics["projection"].values():
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
        assert (vectors[0] != vectors[1]).any()


@pytest.mark.slow
@pytest.mark.parametrize("network", REFERENCES)
def test_bfloat16_computes_roughly_the_same(network):
    images = jnp.asarray(_images(6, 8), jnp.float32)
    precise, rough = (
        compiled(from_linen(tiny_model(), network(dtype=dtype), (8, 8, 3))) for dtype in (jnp.float32, jnp.bfloat16)
    )
    params, statistics = precise.init(jax.random.key(0)), precise.init_statistics(jax.random.key(1))
    expected, output = (model.train(params, statistics, images, jax.random.key(2)) for model in (precise, rough))
    assert output.logits.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(output.statistics)} == {jnp.dtype("float32")}
    assert 0 < abs(expected.logits - output.logits).mean() < 0.05 * expected.logits.std()
