"""Encoder: padding, the stream of tokens, and programs for other devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.marks import mark_slow
from helpers.tiny import assert_close_tree, random_images, random_params, tiny_model
from helpers.tiny_families import tiny_family

from benchmarks.aot.targets import assuming_cudnn
from ppvit_jax import models
from ppvit_jax.models import encoder
from ppvit_jax.models.vit_config import parse_name


def _loss_and_gradients(config, params, images):
    model = models.build(config)

    def loss(params):
        logits = model.apply(params, images)
        return (jax.nn.log_softmax(logits) * jnp.arange(logits.shape[-1])).sum()

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.mark.slow
@pytest.mark.parametrize("representation_size", [None, 8])
def test_rows_of_padding_change_neither_the_loss_nor_any_gradient(monkeypatch, representation_size):
    """JAX's masked softmax is in float32 even in float64."""
    with jax.enable_x64(True):
        config = tiny_model(dtype="float64", representation_size=representation_size)
        params = random_params(config, dtype=np.float64)
        images = random_images(3, 16) / 127.5 - 1
        plain = _loss_and_gradients(config, params, images)
        monkeypatch.setattr(encoder, "padded_tokens", lambda tokens, implementation: tokens + 5)
        padded = _loss_and_gradients(config, params, images)
    np.testing.assert_allclose(padded[0], plain[0], rtol=1e-6)
    assert_close_tree(padded[1], plain[1], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_the_encoder_for_accelerators_computes_the_same(platform):
    """It runs on this machine; only its code path is that of an accelerator."""
    config = tiny_model()
    params, images = random_params(config), (random_images(3, 16) / 127.5 - 1).astype(np.float32)
    here = _loss_and_gradients(config, params, images)
    there = _loss_and_gradients(models.retarget(config, models.Target(platform)), params, images)
    np.testing.assert_allclose(there[0], here[0], rtol=1e-5)
    assert_close_tree(there[1], here[1], 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", ["ViT with pre_logits", "DeiT distilled", "DINOv2 giant with registers", "DINOv3", "SigLIP", "CLIP"]
)
def test_accelerators_compute_float64_in_float64(case):
    """One value in float32 would give differences of 1e-8 or more."""
    with jax.enable_x64(True):
        config = tiny_family(case, dtype="float64")
        params, images = random_params(config, dtype=np.float64), random_images(3, 16) / 127.5 - 1
        there = [models.build(models.retarget(config, models.Target(platform))) for platform in ("cpu", "gpu", "tpu")]
        cpu, gpu, tpu = jax.jit(lambda params: [model.apply(params, images) for model in there])(params)
    np.testing.assert_allclose([gpu, tpu], [cpu, cpu], rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", mark_slow(["Micro", "Ti", "S", "B", "L", "H"], but=["Micro"]))
@pytest.mark.parametrize(("image_size", "representation_size"), [(224, None), (384, 32)])
def test_every_size_lowers_for_a_gpu_with_cudnns_attention(size, image_size, representation_size):
    """The whole program is traced, and lowered for CUDA without a GPU."""
    patch = {"Micro": 8, "H": 14}.get(size, 16)
    image_size = image_size // patch * patch
    config = parse_name(
        f"ViT-{size}/{patch}",
        image_size=image_size,
        num_classes=5,
        dtype="bfloat16",
        representation_size=representation_size,
    )
    config = models.retarget(dataclasses.replace(config, layers=1), models.Target("gpu"))
    model = models.build(config)
    images = jax.ShapeDtypeStruct((2, image_size, image_size, 3), jnp.bfloat16)

    def loss(params, images):
        return model.apply(params, images).sum()

    with assuming_cudnn():
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        program = jax.jit(jax.grad(loss)).trace(shapes, images).lower(lowering_platforms=("cuda",)).as_text()
    tokens = (image_size // patch) ** 2 + 1
    padded = -(-tokens // 8) * 8
    head = config.hidden_size // config.heads
    assert f"tensor<2x{padded}x{config.heads}x{head}xbf16>" in program
    assert f"tensor<{2 * padded}x{config.hidden_size}xbf16>" in program
    assert f"{tokens}x{tokens}x" not in program and f"{padded}x{padded}x" not in program
