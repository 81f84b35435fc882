"""Attention against its equation, and the choice of its implementation."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.gradients import output_and_gradients, random_operands
from helpers.tiny import tiny_model

from benchmarks.aot.targets import assuming_cudnn
from ppvit_jax import models
from ppvit_jax.errors import UserError
from ppvit_jax.models.attention import attention, choose_attention, padded_tokens

CPU, GPU, TPU = (models.Target(platform) for platform in ("cpu", "gpu", "tpu"))


def _plain_attention(query, key, value):
    logits = jnp.einsum("bnhk,bmhk->bhnm", query, key) / np.sqrt(query.shape[-1])
    return jnp.einsum("bhnm,bmhk->bnhk", jax.nn.softmax(logits), value)


# In bfloat16 the weights and their gradients are also rounded, to 8 bits.
@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12), ("bfloat16", 0.02)])
@pytest.mark.parametrize("shape", [(8, 5, 3, 4), (3, 17, 1, 8), (1, 1, 2, 2)])
def test_attention_is_the_equation_with_its_gradients(dtype, tolerance, shape):
    with jax.enable_x64(True):
        precise, arrays = random_operands(dtype, *[shape] * 4)
        actual = output_and_gradients(
            lambda query, key, value: attention(query, key, value, dtype, "xla"), arrays[:3], arrays[3]
        )
        expected = output_and_gradients(_plain_attention, precise[:3], precise[3])
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * (1 + abs(theirs).max()))


@pytest.mark.slow
@pytest.mark.parametrize("target", [CPU, TPU])
def test_padding_changes_neither_the_result_nor_the_gradients(target):
    """Padding that counted would show, because it is large here; JAX's masked softmax is always in float32."""
    with jax.enable_x64(True):
        _, arrays = random_operands("float64", *[(2, 5, 3, 4)] * 4)
        expected = output_and_gradients(
            lambda q, k, v: attention(q, k, v, "float64", "xla", target), arrays[:3], arrays[3]
        )
        wide = [jnp.pad(array, ((0, 0), (0, 3), (0, 0), (0, 0)), constant_values=9) for array in arrays]
        actual = output_and_gradients(
            lambda q, k, v: attention(q, k, v, "float64", "xla", target, 5), wide[:3], wide[3]
        )
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours[:, :5], theirs, atol=1e-6)
        assert not ours[:, 5:].any()


@pytest.mark.slow
@pytest.mark.parametrize("target", [GPU, TPU])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
def test_accelerators_compute_the_same_attention(target, dtype, tolerance):
    """JAX's attention computes the softmax of float64 in float32, and would miss the tolerance of float64."""
    with jax.enable_x64(True):
        _, (query, key, value) = random_operands(dtype, *[(4, 6, 2, 8)] * 3)
        there, here = (attention(query, key, value, dtype, "xla", device) for device in (target, CPU))
    np.testing.assert_allclose(there, here, atol=tolerance)


def test_cudnn_gets_tokens_in_multiples_of_eight_and_their_number():
    """JAX lowers the program for a GPU that is not here; only its look at cuDNN's version is replaced."""
    tokens = 197
    padded = padded_tokens(tokens, "cudnn")
    operands = [jax.ShapeDtypeStruct((2, padded, 3, 64), jnp.bfloat16)] * 3

    def loss(query, key, value):
        return attention(query, key, value, "bfloat16", "cudnn", GPU, tokens).astype(jnp.float32).sum()

    with assuming_cudnn():
        traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*operands)
        program = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert padded == 200
    calls = re.findall(r"custom_call @(__cudnn\$\w+)", program)
    assert len(calls) == 2 and calls[1].endswith("Backward")
    assert re.search(r"dense<197> : tensor<2xi32>|constant dense<197>", program)
    assert "200x200" not in program


@pytest.mark.parametrize("tokens", [196, 197, 200, 257, 577])
def test_only_cudnn_pads(tokens):
    assert padded_tokens(tokens, "xla") == tokens
    padded = padded_tokens(tokens, "cudnn")
    assert padded % 8 == 0 and tokens <= padded < tokens + 8


@pytest.mark.parametrize(
    ("implementation", "dtype", "head_size", "target", "chosen"),
    [
        ("auto", "bfloat16", 64, GPU, "cudnn"),
        ("auto", "bfloat16", 80, GPU, "cudnn"),
        ("cudnn", "bfloat16", 128, GPU, "cudnn"),
        ("xla", "bfloat16", 64, GPU, "xla"),
        ("auto", "float32", 64, GPU, "xla"),
        ("auto", "bfloat16", 20, GPU, "xla"),
        ("auto", "bfloat16", 136, GPU, "xla"),
        ("auto", "bfloat16", 64, TPU, "xla"),
        ("auto", "bfloat16", 64, CPU, "xla"),
    ],
)
def test_cudnn_is_chosen_where_it_computes_this_attention(implementation, dtype, head_size, target, chosen):
    assert choose_attention(implementation, dtype, head_size, target) == chosen


@pytest.mark.parametrize(
    ("capability", "chosen"), [("9.0", "cudnn"), ("8.0", "cudnn"), ("12.0", "cudnn"), ("7.5", "xla"), ("gfx90a", "xla")]
)
def test_a_gpu_that_is_there_is_asked_for_its_generation(monkeypatch, capability, chosen):
    class Device:
        compute_capability = capability

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert choose_attention("auto", "bfloat16", 64, GPU) == chosen


def test_attention_that_is_not_to_be_had_is_named():
    with pytest.raises(UserError, match="unknown attention 'flash': use auto, xla or cudnn"):
        models.build(tiny_model(attention="flash"))
    with pytest.raises(UserError, match="needs a CUDA GPU and dtype bfloat16, not cpu and bfloat16"):
        models.build(tiny_model(attention="cudnn", dtype="bfloat16"))
    with pytest.raises(UserError, match="in multiples of 8, not 12: use auto"):
        choose_attention("cudnn", "bfloat16", 12, GPU)
