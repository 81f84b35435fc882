"""The program of compiled steps: a gather in the order of the model's patches, with the bytes of the method."""

import copy
import dataclasses
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny import random_dataset, random_images
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax import models
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.config import default_config
from ppvit_jax.data.preprocess import normalize_images
from ppvit_jax.encryption import METHODS, parse
from ppvit_jax.encryption.blockwise import Gather
from ppvit_jax.encryption.permutations import split_blocks
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey
from ppvit_jax.training import experiment, pretrained, step

GATHERING = [
    *(name for name, method in METHODS.items() if issubclass(method, Gather)),
    "restricted:fixed_blocks=0,fixed_pixels=1",
    "bs+ps+np:shared=False",
    "bs+pps:shared=none",
    "etc:shared=True,sub_block_size=2",
    "etc:negative_positive=False",
    "etc:channels=published",
    "pe:color=False",
]
PLATFORMS = ["cpu", "gpu", "tpu"]
KEY = SecretKey(bytes(range(32)))


def _numbers(images):
    return np.arange(len(images), dtype=np.uint32)


def test_every_method_of_permutations_is_tested():
    assert {"bs", "ps", "bs+ps", "restricted", "np", "bs+ps+np", "bs+pps", "etc", "pe"} <= set(GATHERING)


@pytest.mark.parametrize("spec", GATHERING)
@settings(deadline=None, max_examples=20)
@given(
    block_size=st.sampled_from([2, 4]),
    patch_size=st.integers(1, 8),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    batch=st.lists(st.integers(1, 2), max_size=2),
    key=st.binary(min_size=32, max_size=32),
    platform=st.sampled_from(PLATFORMS),
)
def test_the_bytes_are_those_of_the_method(spec, block_size, patch_size, rows, columns, batch, key, platform):
    # At least four blocks, as `restricted` needs.
    height, width = 2 * rows * block_size, 2 * columns * block_size
    method = parse(spec, block_size)
    images = np.random.default_rng(key[0]).integers(0, 256, (*batch, height, width, 3), np.uint8)
    secret = method.derive(SecretKey(key), height=height, width=width)
    before = copy.deepcopy((images, secret))
    expected = method.encrypt(images, secret)

    program = method.program_in_blocks(patch_size, platform)
    placed = program.sort(secret, height=height, width=width)
    divides = height % patch_size == 0 and width % patch_size == 0
    assert placed.keys() == ({f"block_{name}" for name in secret} if divides else secret.keys())
    chex.assert_trees_all_equal(program.sort(placed, height=height, width=width), placed, strict=True)
    for either in (placed, secret):
        encrypted = program.encrypt(images, either)
        assert (type(encrypted), encrypted.dtype) == (np.ndarray, np.uint8)
        np.testing.assert_array_equal(encrypted, expected)
    chex.assert_trees_all_equal((images, secret), before, strict=True)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("spec", ["bs+ps", "etc"])
@pytest.mark.parametrize("patch_size", [4, 2, 6, 5])
def test_the_bytes_are_the_same_when_compiled_for_any_platform(platform, spec, patch_size):
    method, images = parse(spec, 4), random_images(3, 24)[:, :12]
    secret = method.derive(KEY, height=12, width=24)
    program = method.program_in_blocks(patch_size, platform)

    @jax.jit
    def compiled(images, placed, secret):
        mapped = jax.vmap(program.encrypt, (0, None))(images, placed)
        return program.encrypt(images, placed), program.encrypt(images, secret), mapped

    for encrypted in compiled(images, program.sort(secret, height=12, width=24), secret):
        assert encrypted.dtype == np.uint8
        np.testing.assert_array_equal(encrypted, method.encrypt(images, secret))


def test_all_gathers_share_a_program_and_the_others_keep_theirs():
    shared = {parse(spec, block_size).program_in_blocks(4) for spec in GATHERING for block_size in (2, 4)}
    assert len(shared) == 1
    assert parse("bs", 4).program_in_blocks(8) not in shared
    assert parse("bs", 4).program_in_blocks(4, "gpu") not in shared
    for spec in ("le", "ele", "neuracrypt:depth=1,width=16", "pe:keys=per_image"):
        method = parse(spec, 4)
        program, secret = method.program_in_blocks(4, "gpu"), method.derive(KEY, height=8, width=8)
        assert program == method.program
        assert program.sort(secret, height=8, width=8) is secret
    # Convolutional networks do not cut images.
    for spec in GATHERING:
        assert parse(spec, 4).program_in_blocks(0, "gpu") == parse(spec, 4).program


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("spec", ["bs+ps", "etc"])
def test_a_secret_of_another_size_is_refused_in_both_orders(spec, platform):
    method, images = parse(spec, 4), random_images(2, 24)[:, :16]
    program = method.program_in_blocks(4, platform)
    for height, width in ((8, 8), (24, 24), (16, 16), (32, 32)):
        secret = method.derive(KEY, height=height, width=width)
        placed = program.sort(secret, height=height, width=width)
        for either in (secret, placed):
            for encrypt in (program.encrypt, lambda *arguments: jax.eval_shape(program.encrypt, *arguments)):
                with pytest.raises(UserError, match=r"does not fit images of \(16, 24, 3\): derive another") as caught:
                    encrypt(images, either)
                assert "\n" not in str(caught.value)
        with pytest.raises(UserError, match=r"does not fit images of \(16, 24, 3\)"):
            program.sort(secret, height=16, width=24)


def test_a_sorted_secret_is_never_used_in_another_order():
    method, images = parse("bs+ps", 4), random_images(2, 24)[:, :16]
    secret = method.derive(KEY, height=16, width=24)
    placed = method.program_in_blocks(4).sort(secret, height=16, width=24)
    # As many values, in blocks of another size or in images that lie on their side.
    with pytest.raises(UserError, match="does not fit"):
        method.program_in_blocks(8).encrypt(images, placed)
    with pytest.raises(UserError, match="does not fit"):
        method.program_in_blocks(4).encrypt(images.swapaxes(1, 2), placed)
    with pytest.raises(UserError, match="does not fit"):
        method.encrypt(images, {"index": placed["block_index"]})
    for encrypt in (method.encrypt, method.program.encrypt, method.program_in_blocks(0).encrypt):
        with pytest.raises(KeyError, match="index"):
            encrypt(images, placed)
    with pytest.raises(UserError, match="does not decrypt"):
        method.program_in_blocks(4).decrypt(images, placed)


@pytest.fixture
def linear_models(monkeypatch):
    """Replaces every model by a matrix product, which compiles in no time."""
    weights = np.random.default_rng(0).standard_normal((16 * 16 * 3, 3), np.float32)

    def build_linear(model_config):
        def apply(params, images, statistics):
            return images.reshape(len(images), -1) @ weights

        return dataclasses.replace(build(model_config), apply=apply)

    build = models.build
    step._compiled.cache_clear()
    monkeypatch.setattr(models, "build", build_linear)
    yield
    step._compiled.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-Micro/8", "ViT-Micro/4", "ResNet-18"])
def test_a_compiled_step_takes_the_secret_in_both_orders(linear_models, name):
    model_config, config = models.parse_name(name, image_size=16, num_classes=3), default_config()
    config.encryption, config.block_size = "bs+ps+np", 8
    method = parse(config.encryption, config.block_size)
    secret, images = method.derive(KEY, height=16, width=16), random_images(4, 16)
    batch = {"label": np.arange(4, dtype=np.int32) % 3, "mask": np.ones(4, np.float32)}
    eval_step = step.compile_steps(model_config, config, total_steps=1).eval_step
    expected = eval_step({}, {}, batch | {"image": method.encrypt(images, secret)}, None)
    placed = method.program_in_blocks(model_config.patch_size).sort(secret, height=16, width=16)
    assert (placed is secret) == (name == "ResNet-18")
    for either in (secret, placed):
        sums = eval_step({}, {}, batch | {"image": images}, either)
        chex.assert_trees_all_close(sums, expected, rtol=1e-5)
    plain = eval_step({}, {}, batch | {"image": images}, None)
    assert abs(plain["loss"] - expected["loss"]) > 1


@pytest.mark.parametrize("name", ["ViT-Micro/8", "ResNet-18"])
def test_a_run_sorts_its_secret_once(monkeypatch, tmp_path, name):
    given_runs, config = [], default_config()
    config.update({"model": name, "image_size": 16, "encryption": "bs+ps", "block_size": 8, "adapt": False})
    monkeypatch.setattr(experiment, "train", lambda run, workdir: given_runs.append(run))
    # The parameters do not matter here, and take seconds to draw.
    monkeypatch.setattr(
        pretrained, "load", lambda config, model_config, *_, **__: pretrained.Start(model_config, {}, {}, Metadata())
    )
    experiment.run(config, tmp_path, random_dataset())
    (run,) = given_runs
    assert {name: array.shape for name, array in run.secret.items()} == (
        {"index": (768,)} if name == "ResNet-18" else {"block_index": (2, 2, 192)}
    )


def _gathers(text: str) -> list[list[str]]:
    """Returns the operations of each computation of a compiled program that gathers bytes, from its text."""
    computations = re.split(r"\n(?=%|ENTRY )", text)
    return [re.findall(r"= \S+ ([\w\-]+)\(", body) for body in computations if re.search(r"u8\[\S+ gather\(", body)]


def test_gathers_are_found_in_a_program():
    lowered = jax.jit(lambda images, index: jnp.take(images, index)).lower(np.zeros(9, np.uint8), np.arange(4))
    (operations,) = _gathers(lowered.compile().as_text() or "")
    assert "gather" in operations


# JAX keeps the programs of other devices in its cache, and cannot read them from it.
@pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache entry")
@pytest.mark.parametrize(("spec", "mean"), [("bs+ps", (0.5, 0.5, 0.5)), ("bs+ps+np", (0.485, 0.456, 0.406))])
@pytest.mark.parametrize("count", [1, 4])
def test_a_gpu_gathers_and_normalizes_in_one_kernel_without_a_transpose(spec, mean, count):
    """Compiles for H200s that need not be here: encryption, normalization, and the cut into patches of ViT-B/16."""
    targets = pytest.importorskip("benchmarks.aot.targets")
    machine = targets.parse(f"h200-{count}" if count > 1 else "h200")
    if reason := targets.missing(machine):
        pytest.skip(reason)
    mesh = jax.sharding.Mesh(np.array(targets.devices(machine)), ("data",))
    method = parse(spec, 16)
    program = method.program_in_blocks(16, mesh.devices.flat[0].platform)
    secret = program.sort(method.derive(KEY, height=224, width=224), height=224, width=224)

    def embed(images, secret, kernel):
        pixels = normalize_images(program.encrypt(images, secret), mean, (0.5,) * 3, jnp.bfloat16)
        return split_blocks(pixels, 16) @ kernel

    def placed(shape, dtype, *axes):
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    arguments = (
        placed((32 * count, 224, 224, 3), jnp.uint8, "data"),
        jax.tree.map(lambda leaf: placed(leaf.shape, leaf.dtype), secret),
        placed((768, 768), jnp.bfloat16),
    )
    text = jax.jit(embed).lower(*arguments).compile(compiler_options=machine.compiler_options).as_text() or ""
    (operations,) = _gathers(text)
    assert "multiply" in operations and "convert" in operations and ("xor" in operations) == ("np" in spec)
    assert " transpose(" not in text
    assert not re.search(r" (all-gather|all-to-all|all-reduce|collective-permute)(-start)?\(", text)
