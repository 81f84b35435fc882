"""The estimates of `ppvit scaling`, compared with the counts of JAX and XLA."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from helpers.collectives import compile_on_devices
from helpers.tiny import tiny_model

from ppvit_jax import models
from ppvit_jax.config import default_config
from ppvit_jax.errors import UserError
from ppvit_jax.models.vit import parse_name
from ppvit_jax.training import scaling
from ppvit_jax.training.step import compile_steps


def _vit(name: str, image_size: int = 224, num_classes: int = 10, **fields: Any) -> models.ViTConfig:
    return parse_name(name, image_size=image_size, num_classes=num_classes, **fields)


def _kept(config: models.ViTConfig, devices: int) -> int:
    """Returns the number of parameters that each of several devices keeps if they are fully sharded."""
    setup = scaling.Setup(batch_size=devices, devices=devices, sharding="fully_sharded")
    return scaling.step_cost(config, setup).parameters // 4


def _bytes(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree) if leaf.ndim)


def _small(name: str, image_size: int = 64, **fields: Any) -> models.ViTConfig:
    """Returns two blocks of a model of any family."""
    config = models.parse_name(name, image_size=image_size, num_classes=10)
    assert isinstance(config, models.ViTConfig)
    return dataclasses.replace(config, layers=2, **fields)


SMALL_MODELS = {
    "DeiT-S/16-distilled": 64,
    "DeiT-S/16-III": 64,
    "DINOv2-S/14-registers": 56,
    "DINOv2-g/14": 28,
    "DINOv3-S+/16": 64,
    "SigLIP-B/16": 64,
    "CLIP-B/16": 64,
}


def _training(config, settings=None, **optimizer):
    """Returns the steps of a run and the shapes of its state."""
    settings = settings or default_config()
    settings.encryption = "none"
    settings.optimizer.update(optimizer)
    steps = compile_steps(config, settings, 1)
    params = jax.eval_shape(models.build(config).init, jax.random.key(0))
    return steps, jax.eval_shape(lambda params: steps.init_state(params, {}), params)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        _vit("ViT-Micro/8", image_size=64),
        _vit("ViT-Micro/16", image_size=32, num_classes=500, representation_size=96),
        *(_small(name, size) for name, size in SMALL_MODELS.items()),
    ],
    ids=lambda config: models.model_name(config) or type(config).__name__,
)
def test_flops_of_the_forward_pass_are_those_of_xla_but_for_the_elementwise_ones(config):
    model = models.build(config)
    # The scale and bias of a layer normalization are folded into the next kernel once for the whole batch.
    images = jax.ShapeDtypeStruct((64, *models.input_shape(config)), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0))
    counted: Any = jax.jit(model.apply).lower(params, images).cost_analysis()
    assert 1 <= counted["flops"] / (64 * scaling.forward_flops(config)) < 1.05


@pytest.mark.parametrize("name", scaling.OPTIMIZER_COPIES)
def test_parameters_and_optimizer_state_have_the_bytes_of_a_runs_state(name):
    config = tiny_model()
    _, state = _training(config, name=name)
    cost = scaling.step_cost(config, scaling.Setup(batch_size=1, optimizer=name))
    assert cost.parameters == cost.gradients == _bytes(state["params"])
    assert cost.optimizer == _bytes(state["opt_state"])


@pytest.mark.parametrize("method", ["full", "lora", "probe"])
@pytest.mark.parametrize("name", SMALL_MODELS)
def test_the_state_of_every_family_and_method_has_the_bytes_of_a_runs_state(name, method):
    config, settings = _small(name, SMALL_MODELS[name]), default_config()
    settings.update({"ema_decay": 0.9})
    settings.tuning.update({"method": method, "rank": 3})
    _, state = _training(config, settings, name="adamw")
    setup = scaling.Setup(batch_size=1, optimizer="adamw", tuning=method, rank=3, ema_decay=0.9)
    cost = scaling.step_cost(config, setup)
    assert cost.parameters == _bytes(state["params"]) + _bytes(state.get("frozen", {}))
    assert cost.optimizer == _bytes(state["opt_state"]) == 2 * cost.gradients
    assert cost.average == _bytes(state["average"])
    # Full tuning changes everything but the table of 32 angles for each of 16 patches.
    assert cost.average - cost.gradients == (4 * 16 * 32 if "DINOv3" in name and method == "full" else 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "remat"), [("full", "blocks"), ("lora", "none"), ("lora", "blocks"), ("probe", "none")]
)
@pytest.mark.parametrize("name", ["DeiT-S/16-III", "SigLIP-B/16"])
def test_flops_of_a_step_are_those_of_xla_but_for_the_elementwise_ones(name, method, remat):
    config, settings, batch_size = _small(name, hidden_size=384, heads=6, mlp_size=1536), default_config(), 32
    settings.tuning.method, settings.remat = method, remat
    steps, state = _training(config, settings)
    batch = {
        "image": jax.ShapeDtypeStruct((batch_size, *models.input_shape(config)), jnp.uint8),
        "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    }
    train_step: Any = steps.train_step
    compiled = train_step.lower(state, batch, jax.eval_shape(jax.random.key, 0), None).compile()
    flops = scaling.step_flops(config, scaling.Setup(batch_size=batch_size, tuning=method, remat=remat))
    assert 1 <= compiled.cost_analysis()["flops"] / flops < 1.06


def test_what_tuning_and_recomputation_save():
    config = models.retarget(_vit("ViT-B/16", dtype="bfloat16"), models.Target("gpu"))
    setup = scaling.Setup(batch_size=64)
    full = scaling.step_cost(config, setup)
    lora, probe = (scaling.step_cost(config, dataclasses.replace(setup, tuning=method)) for method in ("lora", "probe"))
    # Two factors of rank 8 for two layers in each of 12 blocks, and the head.
    assert lora.gradients == 4 * (12 * 2 * 2 * 768 * 8 + 7_690) and probe.gradients == 4 * 7_690
    assert probe.memory < lora.memory / 2 < full.memory / 2
    # The forward pass, and almost no gradient of a kernel.
    assert 1 <= probe.flops / (64 * scaling.forward_flops(config)) < 1.02 < lora.flops / probe.flops < 2.3
    again = scaling.step_cost(config, dataclasses.replace(setup, remat="blocks"))
    assert again.memory < full.memory / 2 and 1.2 < again.flops / full.flops < 4 / 3
    # Attention of the first block needs no gradient if factors begin in the last one.
    late = dataclasses.replace(setup, tuning="lora", tuned_layers=(".*block_11/.*/value",))
    assert scaling.step_cost(config, late).activations < lora.activations / 4
    average = scaling.step_cost(config, dataclasses.replace(setup, ema_decay=0.9))
    assert average.memory - full.memory == average.average == full.parameters


def test_frozen_kernels_are_gathered_and_have_no_gradient():
    config = _vit("ViT-B/16", dtype="bfloat16")
    shapes = models.parameter_shapes(config)
    adapted = sum(math.prod(shape) for name, shape in shapes.items() if name.endswith(("query/kernel", "value/kernel")))
    setups = {
        (tuning, sharding): scaling.Setup(batch_size=4, devices=4, sharding=sharding, tuning=tuning)
        for tuning in ("lora", "probe")
        for sharding in ("data_parallel", "fully_sharded")
    }
    sent = {key: scaling.sent_bytes(config, setup) for key, setup in setups.items()}
    head = 2 * 4 * 7_690 * 3 // 4
    assert sent["probe", "data_parallel"] == head
    # The gradient of a kernel is exchanged before it becomes that of its factors.
    assert sent["lora", "data_parallel"] == head + 2 * 4 * adapted * 3 // 4
    kernels = sum(math.prod(shape) for name, shape in shapes.items() if name.endswith("kernel"))
    assert math.isclose(sent["probe", "fully_sharded"], 2 * kernels * 3 / 4, rel_tol=1e-3)
    expected = (2 * 2 * kernels + 4 * adapted) * 3 / 4
    assert math.isclose(sent["lora", "fully_sharded"], expected, rel_tol=0.02)


# The second model has many tokens, so that attention weights are a large part of its activations.
@pytest.mark.slow
@pytest.mark.parametrize(("image_size", "heads", "mlp_size"), [(32, 2, 256), (64, 4, 128)])
def test_activations_are_within_a_fifth_of_what_xla_reserves(image_size, heads, mlp_size):
    config = dataclasses.replace(tiny_model(image_size), hidden_size=64, layers=4, heads=heads, mlp_size=mlp_size)
    batch_size = 32
    steps, state = _training(config)
    batch = {
        "image": jax.ShapeDtypeStruct((batch_size, *models.input_shape(config)), jnp.uint8),
        "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    }
    train_step: Any = steps.train_step
    compiled = train_step.lower(state, batch, jax.eval_shape(jax.random.key, 0), None).compile()
    cost = scaling.step_cost(config, scaling.Setup(batch_size=batch_size))
    assert cost.activations > 10 * cost.gradients
    assert 0.9 < compiled.memory_analysis().temp_size_in_bytes / cost.activations < 1.2


@pytest.mark.slow
def test_devices_share_what_their_number_divides():
    config = _vit("ViT-B/16")
    setups = (scaling.Setup(batch_size=64, devices=n, sharding="fully_sharded") for n in (1, 8))
    one, eight = (scaling.step_cost(config, setup) for setup in setups)
    data_parallel = scaling.step_cost(config, scaling.Setup(batch_size=64, devices=8))
    assert one == scaling.step_cost(config, scaling.Setup(batch_size=64))
    assert one.sent == 0
    for kind in ("parameters", "gradients", "optimizer"):
        assert getattr(data_parallel, kind) == getattr(one, kind)
        assert getattr(one, kind) < 8 * getattr(eight, kind) < 1.02 * getattr(one, kind)
    kernels = sum(math.prod(s) for name, s in models.parameter_shapes(config).items() if name.endswith("kernel"))
    assert eight.working_copy == kernels * 4 * 3 // 4
    assert data_parallel.sent == 2 * 7 * one.parameters // 8
    # The vectors and the position embedding are all-reduced, and not gathered twice.
    assert math.isclose(eight.sent, 3 * 7 * one.parameters / 8, rel_tol=0.005)
    for cost in (eight, data_parallel):
        assert (cost.flops * 8, cost.activations * 8) == (one.flops, one.activations)
    # No tensor has an axis whose size is a multiple of 7.
    assert _kept(tiny_model(20, 4), 7) == _kept(tiny_model(20, 4), 1)


SMALL: dict[str, Any] = {
    "patch_size": 4,
    "hidden_size": 64,
    "layers": 2,
    "heads": 2,
    "mlp_size": 192,
    "image_size": 12,
    "num_classes": 3,
}


def _on_four_devices(sharding):
    """Returns kept parameters by JAX, all parameters, and float32 elements of each collective but the loss."""
    found = compile_on_devices(4, sharding, SMALL, images=10)
    elements = {op: size / 4 for op, dtype, _, size in found["exchanges"] if dtype == "f32"}
    elements["all-reduce"] -= 1
    return found["kept"], _kept(models.ViTConfig(**SMALL), 1), elements


@pytest.mark.slow
def test_data_parallel_devices_exchange_the_gradients_alone():
    kept, parameters, elements = _on_four_devices("data_parallel")
    assert kept == parameters
    # The gradients of the folded normalizations (two a layer) and of the class token follow from others.
    assert elements == {"all-reduce": parameters - (2 * 2 * 2 + 1) * 64}


@pytest.mark.slow
def test_fully_sharded_devices_keep_parts_and_exchange_parameters_and_gradients_alone():
    kept, parameters, elements = _on_four_devices("fully_sharded")
    assert kept == _kept(models.ViTConfig(**SMALL), 4) < 0.3 * parameters
    layers, hidden, mlp_size = 2, 64, 192
    # The folded bias of an MLP, and gradients of the folded scales and biases of a layer.
    vectors = layers * (mlp_size + 2 * hidden)
    gathered = elements.pop("all-gather") - vectors
    # The backward pass gathers each kernel again, as the estimate assumes. On a CPU, XLA merges some of these
    # gatherings with those of the forward pass.
    once = 4 * (parameters - kept) // 3
    assert once < gathered <= 2 * once
    # The gradients of the folded normalizations and of the class token follow from others. The folded biases of
    # queries, keys and values are sums over a divided kernel, and so are the gradients of an MLP's folded scale and
    # bias. XLA has no reduce-scatter on a CPU.
    assert elements == {"all-reduce": parameters - (4 * layers + 1) * hidden + layers * (3 + 2) * hidden}


@pytest.mark.slow
def test_what_saves_memory():
    config = models.retarget(_vit("ViT-B/16", dtype="bfloat16", attention="xla"), models.Target("gpu"))
    whole = scaling.step_cost(config, scaling.Setup(batch_size=64))
    parts = scaling.step_cost(config, scaling.Setup(batch_size=64, accumulation=8))
    assert parts.activations * 8 == whole.activations and parts.flops == whole.flops
    assert parts.accumulated == whole.gradients and parts.memory < whole.memory
    flash = scaling.step_cost(dataclasses.replace(config, attention="auto"), scaling.Setup(batch_size=64))
    assert (flash.attention_weights, whole.attention_weights) == (0, 64 * 12 * 12 * 197**2 * (4 + 2))
    # cuDNN computes with 200 tokens.
    others = whole.activations - whole.attention_weights
    assert flash.activations < whole.activations and math.isclose(flash.activations / others, 200 / 197, rel_tol=1e-3)
    float32 = scaling.step_cost(dataclasses.replace(config, dtype="float32"), scaling.Setup(batch_size=64))
    # Kernels after a normalization are multiplied by its scale. XLA computes the momentum of others early.
    scaled, others = 12 * 7 * 768**2, 12 * 5 * 768**2 + 3 * 16**2 * 768
    assert float32.working_copy == 4 * (scaled + others)
    assert whole.working_copy == 2 * (scaled + others + 7_680) + 4 * others
    assert math.isclose(whole.activations / float32.activations, 0.55, rel_tol=0.1)
    tpu = scaling.step_cost(models.retarget(config, models.Target("tpu")), scaling.Setup(batch_size=64))
    assert tpu.attention_weights == 64 * 12 * 12 * 200 * 256 * 4


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["data_parallel", "fully_sharded"])
def test_gradients_in_bfloat16_send_half_as_much(sharding):
    config = _vit("ViT-B/16", dtype="bfloat16")
    setups = [
        scaling.Setup(batch_size=4, devices=4, sharding=sharding, reduce_dtype=dtype)
        for dtype in ("float32", "bfloat16")
    ]
    wide, narrow = (scaling.sent_bytes(config, setup) for setup in setups)
    kernels = sum(math.prod(s) for name, s in models.parameter_shapes(config).items() if name.endswith("kernel"))
    assert wide - narrow == (2 if sharding == "data_parallel" else 1) * 2 * 3 * kernels // 4
    float32 = scaling.sent_bytes(dataclasses.replace(config, dtype="float32"), setups[0])
    # Kernels are gathered in the compute dtype, twice. The patch embedding's input has no gradient.
    gathered = 2 * kernels - 3 * 16**2 * 768
    assert float32 - wide == (0 if sharding == "data_parallel" else 2 * 3 * gathered // 4)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"batch_size": 12, "devices": 8}, "a batch of 12 cannot be shared by 8 devices in 1 parts"),
        ({"batch_size": 16, "devices": 8, "accumulation": 4}, "use a multiple of 32"),
        ({"batch_size": 0}, "at least 1"),
        ({"batch_size": 1, "devices": 0}, "at least 1"),
        ({"batch_size": 1, "tuning": "some"}, "unknown tuning 'some': use full, lora or probe"),
        ({"batch_size": 1, "remat": "all"}, "unknown remat 'all': use none or blocks"),
        ({"batch_size": 1, "optimizer": "lion"}, "unknown optimizer"),
        ({"batch_size": 1, "rank": 0}, "at least 1"),
    ],
)
def test_impossible_sizes(sizes, message):
    with pytest.raises(UserError, match=message):
        scaling.Setup(**sizes)
