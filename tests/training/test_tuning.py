"""Training steps of LoRA, of the linear probe and of frozen parameters."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax.traverse_util import unflatten_dict
from helpers.command import ROOT
from helpers.tiny import assert_close_tree, assert_same_tree, flatten, random_images, random_params, tiny_model
from helpers.tiny_families import CASES, tiny_family

from ppvit_jax import checkpoint, models
from ppvit_jax.adaptation import adapt, restore
from ppvit_jax.config import default_config
from ppvit_jax.data.preprocess import normalize_images
from ppvit_jax.encryption.blockwise import make_secret
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey
from ppvit_jax.models.low_rank import FACTORS, find_layers, init_factors, merge_factors
from ppvit_jax.training.devices import shard_batch, shardings, state_shardings
from ppvit_jax.training.step import compile_steps
from ppvit_jax.training.tuning import FROZEN, Tuning, to_save

HALF = (0.5, 0.5, 0.5)
MODEL = tiny_model(dtype="float64")
ALL = {"method": "lora", "rank": 2, "alpha": 6.0, "layers": (".*",)}


def _config(tuning=None, optimizer=None, **fields):
    config = default_config()
    config.dtype, config.encryption = "float64", "bs+ps"
    config.optimizer.update({"learning_rate": 0.05, **(optimizer or {})})
    config.tuning.update(tuning or {})
    config.update(fields)
    return config


@functools.cache
def _batches(steps=4, count=8):
    random = np.random.default_rng(0)
    return random_images(steps * count, 16).reshape(steps, count, 16, 16, 3), random.integers(0, 3, (steps, count))


def _train(config, params, permutations=None, steps=4):
    functions = compile_steps(MODEL, config, total_steps=steps)
    secret = None if permutations is None else make_secret(permutations, 16, 16, 4)
    state = functions.init_state(jax.tree.map(jax.numpy.array, params), {})
    for image, label in zip(*_batches(), strict=True):
        state = functions.train_step(state, {"image": image, "label": label}, jax.random.key(1), secret)
    return jax.device_get(state)


def _loss(config, params):
    images, labels = (array[0] for array in _batches())
    logits = models.build(MODEL).apply(params, normalize_images(images, HALF, HALF, "float64"))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@pytest.mark.slow
def test_the_state_of_lora_and_probe_has_only_what_they_train():
    with jax.enable_x64(True):
        params = random_params(MODEL, dtype=np.float64)
        for tuning in (ALL, {"method": "probe"}):
            state = compile_steps(MODEL, _config(tuning), 4).init_state(params, {})
            trained = flatten(state["params"])
            heads = {name for name in trained if name.startswith("head/")}
            assert heads == {"head/kernel", "head/bias"}
            assert {name.rpartition("/")[2] for name in trained.keys() - heads} == (
                set(FACTORS) if tuning is ALL else set()
            )
            assert trained.keys() | flatten(state.get(FROZEN)).keys() >= flatten(params).keys()
            moments = sum(leaf.size for leaf in jax.tree.leaves(state["opt_state"]) if leaf.ndim)
            assert moments == sum(leaf.size for leaf in trained.values())
            assert FROZEN not in to_save(state)


@pytest.mark.slow
def test_frozen_parameters_have_neither_gradient_nor_moments():
    with jax.enable_x64(True):
        config = _config(freeze=("Transformer/.*",), accumulation=2)
        state = compile_steps(MODEL, config, 4).init_state(random_params(MODEL, dtype=np.float64), {})
        assert {leaf.shape for leaf in jax.tree.leaves(state["opt_state"]) if leaf.ndim} == {
            leaf.shape for name, leaf in flatten(state["params"]).items() if not name.startswith("Transformer/")
        }
        trained, frozen = Tuning(config, MODEL).divide(state["params"])
        assert set(frozen) == {"Transformer"} and "Transformer" not in trained
        # The sums of gradients over the parts of a batch are the carry of the only loop.
        batch = {"image": _batches()[0][0], "label": _batches()[1][0]}
        step: Any = compile_steps(MODEL, config, 4).train_step
        text = str(jax.make_jaxpr(lambda *args: step(*args, None))(state, batch, jax.random.key(1)))
        (loop,) = [line for line in text.splitlines() if " = scan[" in line]
        carried = loop.partition(" = scan[")[0].split()
        assert len(carried) <= len(flatten(trained)) + 4, carried


@pytest.mark.slow
def test_one_step_of_lora_is_that_of_the_gradient_by_the_chain_rule():
    """dA = s dW B^T and dB = s A^T dW for the gradient dW of the merged kernel, as in section 4.1 of the paper."""
    with jax.enable_x64(True):
        optimizer = {"momentum": 0.0, "weight_decay": 0.0}
        config = _config(ALL, optimizer, accumulation=2)
        params = random_params(MODEL, dtype=np.float64)
        functions = compile_steps(MODEL, config, total_steps=1)
        state = functions.init_state(params, {})
        random = np.random.default_rng(3)
        # B is zero at first, and so would be the gradient of A.
        state["params"] = jax.tree.map(lambda leaf: np.asarray(leaf) + random.normal(size=leaf.shape), state["params"])
        factors = {name: leaf for name, leaf in flatten(state["params"]).items() if name.endswith(FACTORS)}
        merged = flatten({**params, "head": state["params"]["head"]})
        for name in [name for name in factors if name.endswith("lora_a")]:
            layer = name.rpartition("/")[0]
            a, b = factors[name], factors[f"{layer}/lora_b"]
            kernel = merged[f"{layer}/kernel"]
            merged[f"{layer}/kernel"] = kernel + (3 * np.einsum("ir,ro->io", a, b)).reshape(kernel.shape)
        tree = jax.tree.map(np.asarray, merged)
        gradient = flatten(jax.grad(lambda flat: _loss(config, unflatten_dict(flat, sep="/")))(tree))
        images, labels = (array[0] for array in _batches())
        before = flatten(jax.device_get(state["params"]))
        state = functions.train_step(state, {"image": images, "label": labels}, jax.random.key(1), None)
        after = flatten(jax.device_get(state["params"]))
        for name, old in before.items():
            layer = name.rpartition("/")[0]
            if name in factors:
                a, b = before[f"{layer}/lora_a"], before[f"{layer}/lora_b"]
                wide = np.asarray(gradient[f"{layer}/kernel"]).reshape(len(a), -1)
                expected = 3 * wide @ b.T if name.endswith("lora_a") else 3 * a.T @ wide
            else:
                expected = gradient[name]
            np.testing.assert_allclose(old - after[name], np.float32(0.05) * np.asarray(expected), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tuning", "optimizer"),
    [
        (ALL, {"clip_norm": 0.1, "schedule": "cosine"}),
        ({"method": "probe"}, {}),
        ({"method": "lora"}, {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.05}),
    ],
    ids=["lora of all layers", "probe", "lora with adamw"],
)
def test_trajectories_of_plain_and_adapted_are_equal(tuning, optimizer):
    with jax.enable_x64(True):
        config, params = _config(tuning, optimizer), random_params(MODEL, dtype=np.float64)
        permutations = SecretKey(bytes(32)).permutations("bs+ps", image_size=16, patch_size=4)
        plain = _train(config, params)
        encrypted = _train(config, adapt(params, permutations), permutations)
        # No key permutes the delta.
        assert_close_tree(encrypted["params"], plain["params"], 1e-9)
        whole = [Tuning(config, MODEL).complete(state["params"], state[FROZEN]) for state in (plain, encrypted)]
        assert_close_tree(restore(whole[1], permutations), whole[0], 1e-9)
        changed = {name for name, leaf in flatten(whole[0]).items() if (leaf != flatten(params)[name]).any()}
        assert "head/kernel" in changed and "embedding/kernel" not in changed
        assert len(changed) == {"probe": 2}.get(tuning["method"], 14 if tuning is ALL else 6)
        # A model that is not adapted is trained to something else.
        assert (
            abs(
                _train(config, params, permutations)["params"]["head"]["kernel"] - plain["params"]["head"]["kernel"]
            ).max()
            > 1e-6
        )


def test_merged_weights_compute_what_base_and_factors_do():
    shapes = models.parameter_shapes(tiny_model())
    layers = find_layers(shapes, ("query", "out", "Dense_.*"))
    params, factors = random_params(tiny_model()), init_factors(layers, 3, seed=5)
    random = np.random.default_rng(0)
    factors = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), factors)
    merged = flatten(merge_factors(params, factors, 6.0))
    for layer, (inputs, outputs) in layers.items():
        x = random.normal(size=(5, inputs))
        a, b = (flatten(factors)[f"{layer}/{name}"] for name in FACTORS)
        base = flatten(params)[f"{layer}/kernel"].reshape(inputs, outputs)
        expected = x @ base + 2.0 * ((x @ a) @ b)
        np.testing.assert_allclose(x @ merged[f"{layer}/kernel"].reshape(inputs, outputs), expected, atol=1e-5)
    others = flatten(params).keys() - {f"{layer}/kernel" for layer in layers}
    assert_same_tree({name: merged[name] for name in others}, {name: flatten(params)[name] for name in others})


def test_new_factors_leave_the_model_as_it_is_and_depend_on_the_seed_alone():
    layers = find_layers(models.parameter_shapes(tiny_model()), ("query",))
    first, again, other = (init_factors(layers, 64, seed) for seed in (1, 1, 2))
    assert_same_tree(first, again)
    params = random_params(tiny_model())
    assert_same_tree(merge_factors(params, first, 16.0), params)
    a = np.concatenate([leaf.ravel() for name, leaf in flatten(first).items() if name.endswith("lora_a")])
    assert abs(a.std() * 4 - 1) < 0.1
    assert all((leaf != flatten(other)[name]).any() for name, leaf in flatten(first).items() if name.endswith("_a"))


@pytest.mark.parametrize("case", CASES)
def test_every_family_has_the_layers_and_a_digest_that_no_key_changes(case):
    model = tiny_family(case)
    params, family = random_params(model), models.family_of(model)
    for method in ("lora", "probe"):
        tuning = Tuning(_config({**ALL, "method": method}), model)
        trained, frozen = tuning.init(params, seed=0)
        # B is zero at first.
        assert_same_tree(tuning.complete(trained, frozen), params)
        heads = {name for name in flatten(params) if name.startswith(family.heads)}
        factors = flatten(trained).keys() - heads
        assert len(factors) == (2 * (6 * 2 + 6 * (model.layout.pool == "map")) if method == "lora" else 0)
        assert set(family.fixed) <= flatten(frozen).keys()
    permutations = SecretKey(bytes(32)).permutations("bs+ps", image_size=16, patch_size=4)
    adapted = flatten(adapt(params, permutations))
    one, two = (checkpoint.digest_base(arrays, family) for arrays in (flatten(params), adapted))
    assert one.sha256 == two.sha256 and one.image_sha256 != two.image_sha256 and one.has_norms_of(two)
    changed = flatten(params) | {family.patch_kernel: flatten(params)[family.patch_kernel] * 1.001}
    assert not one.has_norms_of(checkpoint.digest_base(changed, family))
    new_head = flatten(params) | {name: array + 1 for name, array in flatten(params).items() if name in heads}
    assert checkpoint.digest_base(new_head, family) == one


@pytest.mark.slow
def test_layers_are_chosen_by_name_or_by_path():
    shapes = models.parameter_shapes(tiny_model())
    assert len(find_layers(shapes, (".*",))) == 12
    assert set(find_layers(shapes, (r".*block_1/.*query",))) == {
        "Transformer/encoderblock_1/MultiHeadDotProductAttention_1/query"
    }
    siglip = models.parse_name("SigLIP-B/16", image_size=32, num_classes=2)
    pooled = {name for name in find_layers(models.parameter_shapes(siglip), ("out", "Dense_1")) if "MAP" in name}
    assert pooled == {"MAPHead_0/MultiHeadDotProductAttention_0/out", "MAPHead_0/MlpBlock_0/Dense_1"}


@pytest.mark.parametrize(
    ("layers", "message"),
    [(("head",), "'head' matches no layer"), (("(",), "invalid regular expression"), ((), "layers is empty")],
)
def test_layers_that_do_not_exist_are_named(layers, message):
    with pytest.raises(UserError, match=message):
        find_layers(models.parameter_shapes(tiny_model()), layers)


def _wide_model():
    # Factors of a kernel of 16 x 2048 have enough elements to be split among devices.
    return dataclasses.replace(MODEL, mlp_size=2048)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "probe"])
def test_four_devices_fully_sharded_train_what_one_does(method, tmp_path):
    """Runs in processes of their own, whose number of devices differs."""
    program = (
        "import sys, jax, numpy as np; sys.path.insert(0, 'tests')\n"
        "jax.config.update('jax_enable_x64', True)\n"
        "from training import test_tuning as t\n"
        f"t.train_sharded({method!r}, sys.argv[1], sys.argv[2])"
    )
    results = []
    for devices, sharding in ((1, "data_parallel"), (4, "fully_sharded")):
        output = tmp_path / f"{devices}.npz"
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
        subprocess.run(
            [sys.executable, "-c", program, sharding, output],
            cwd=ROOT,
            env=os.environ | flags | {"PYTHONPATH": str(ROOT)},
            check=True,
            timeout=280,
        )
        results.append(dict(np.load(output)))
    assert_close_tree(results[1], results[0], 1e-9)


def train_sharded(method, sharding, output):
    """Trains two steps on the devices of this process, and writes what was trained."""
    model, config = _wide_model(), _config({**ALL, "method": method}, sharding=sharding, accumulation=2)
    functions = compile_steps(model, config, total_steps=2)
    state = functions.init_state(random_params(model, dtype=np.float64), {})
    layout = state_shardings(state, sharding)
    state = jax.device_put(state, layout)
    for image, label in zip(*_batches(2), strict=True):
        batch = shard_batch({"image": image, "label": label}, shardings()[1])
        state = functions.train_step(state, batch, jax.random.key(1), None)
    jax.tree.map(lambda leaf, expected: leaf.sharding.is_equivalent_to(expected, leaf.ndim) or 1 / 0, state, layout)
    if sharding == "fully_sharded":
        assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.get(FROZEN)))
    np.savez(output, **flatten(jax.device_get(state["params"])))


@pytest.mark.parametrize(
    "change",
    [
        {"method": "qlora"},
        {"rank": -1},
        {"rank": 1.5},
        {"alpha": float("nan")},
        {"base": "a\nb"},
        {"digest": None},
        {"layers": [1]},
        {"surprise": 1},
    ],
)
def test_a_record_of_a_delta_is_read_again_and_checked(change):
    digest = checkpoint.BaseDigest("0" * 64, "1" * 64, (1.0, 2.5))
    delta = checkpoint.Delta("lora", "base.npz", digest, rank=2, alpha=4.0, layers=("query",), representation_size=3)
    metadata = checkpoint.Metadata("ViT-B/16", delta=delta)
    assert checkpoint.Metadata.from_json(metadata.to_json()) == metadata
    assert "delta" not in checkpoint.Metadata("ViT-B/16").to_json()
    fields = json.loads(metadata.to_json())
    fields["delta"] |= change
    with pytest.raises(ValueError, match="the field delta"):
        checkpoint.Metadata.from_json(json.dumps(fields))
