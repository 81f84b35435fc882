"""Precision of the products in the programs of a run, and the compiler's options."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny import random_images, random_params, tiny_model

from ppvit_jax import models
from ppvit_jax.commands.shared import model_outputs
from ppvit_jax.config import check, default_config
from ppvit_jax.data.source import ArraySource
from ppvit_jax.errors import UserError
from ppvit_jax.training import inference
from ppvit_jax.training.compiler import compiler_options, fix_precision
from ppvit_jax.training.step import compile_steps


def precisions(lowered: Any) -> set[str]:
    """Returns the precisions of the products and convolutions of a program."""
    text = lowered.as_text()
    products = re.findall(r"stablehlo\.(?:dot_general|convolution)\b.*", text)
    assert products
    named = [re.search(r"precision(?:_config)? = \[(?:#stablehlo<precision )?(\w+)", product) for product in products]
    return {match[1] if match else "DEFAULT" for match in named}


def lower_steps(precision="highest", dtype="float32"):
    config, model = default_config(), tiny_model(dtype=dtype)
    config.update({"encryption": "none", "matmul_precision": precision, "dtype": dtype})
    steps: Any = compile_steps(model, config, 1)
    params, size = random_params(model), model.image_size
    batch = {"image": random_images(2, size), "label": np.zeros(2, np.int32)}
    train = steps.train_step.lower(steps.init_state(params, {}), batch, jax.random.key(0), None)
    evaluation = steps.eval_step.lower(params, {}, batch | {"mask": np.ones(2, np.float32)}, None)
    return train, evaluation


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "expected"), [("highest", "HIGHEST"), ("high", "HIGH"), ("default", "DEFAULT")])
def test_every_product_of_a_float32_step_has_the_precision_of_the_configuration(precision, expected):
    # A setting of the process changes nothing: the programs may be compiled for another device, outside a run.
    with jax.default_matmul_precision("high"):
        for lowered in lower_steps(precision):
            assert precisions(lowered) == {expected}


@pytest.mark.slow
def test_bfloat16_products_are_left_as_they_are():
    for lowered in lower_steps(dtype="bfloat16"):
        assert precisions(lowered) == {"DEFAULT"}


def test_logits_from_python_are_computed_in_float32():
    model = tiny_model()
    images = np.zeros((1, model.image_size, model.image_size, 3), np.float32)
    compiled: Any = inference._compile(model)
    assert precisions(compiled.lower(random_params(model), images, {})) == {"HIGHEST"}


@pytest.mark.slow
def test_predictions_are_computed_in_float32(monkeypatch):
    seen = []
    monkeypatch.setattr(model_outputs, "fix_precision", lambda *a: seen.append(a) or fix_precision(*a))

    class Model:
        shape, metadata = tiny_model(), type("Metadata", (), {"normalization": ((0.5,) * 3, (0.5,) * 3)})
        params, statistics = random_params(tiny_model()), {}

    untyped: Any = Model
    source = ArraySource(np.zeros((1, 16, 16, 3), np.uint8), np.zeros(1, np.int32))
    (logits,) = model_outputs.compute_logits(untyped, source, 1, "predicting")
    apply, dtype = seen[0]
    pixels = jax.ShapeDtypeStruct((1, Model.shape.image_size, Model.shape.image_size, 3), jnp.float32)
    lowered = jax.jit(fix_precision(apply, dtype)).lower(Model.params, pixels, {})
    assert precisions(lowered) == {"HIGHEST"} and logits.dtype == np.float32


def test_gradients_written_by_hand_have_the_precision_too():
    @jax.custom_vjp
    def product(x):
        return x @ x

    product.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x.T + x.T @ g,))
    gradient = fix_precision(jax.grad(lambda x: product(x).sum()), "float32")
    assert precisions(jax.jit(gradient).lower(jnp.ones((2, 2)))) == {"HIGHEST"}


def test_an_unknown_precision_is_refused_in_one_line():
    config = default_config()
    config.update({"checkpoint": "", "matmul_precision": "tf32"})
    with pytest.raises(
        UserError, match=r"^config\.matmul_precision is 'tf32': use one of 'default', 'high', 'highest'$"
    ):
        check(config)
    config.update({"matmul_precision": "high"})
    assert check(config).deterministic is False


def test_bfloat16_sums_of_gradients_need_a_bfloat16_run():
    config = default_config()
    config.update({"checkpoint": "", "reduce_dtype": "float16"})
    with pytest.raises(UserError, match=r"^config\.reduce_dtype is 'float16': use one of 'float32', 'bfloat16'$"):
        check(config)
    config.update({"reduce_dtype": "bfloat16"})
    with pytest.raises(UserError, match=r"^config\.reduce_dtype=bfloat16 needs config\.dtype=bfloat16: set both"):
        check(config)
    config.update({"dtype": "bfloat16"})
    assert check(config).reduce_dtype == "bfloat16"


def test_only_programs_for_a_gpu_get_options():
    options = {"deterministic": True, "keeps_order": True}
    assert [compiler_options(platform, **options) for platform in ("cpu", "tpu")] == [None, None]
    assert compiler_options("gpu") == {"xla_gpu_enable_triton_gemm": False}
    assert compiler_options("gpu", deterministic=True) == {
        "xla_gpu_enable_triton_gemm": False,
        "xla_gpu_deterministic_ops": True,
    }
    assert compiler_options("gpu", keeps_order=True) == {
        "xla_gpu_enable_triton_gemm": False,
        "xla_gpu_enable_latency_hiding_scheduler": False,
    }


def test_the_options_reach_all_steps(monkeypatch):
    asked, jit = [], jax.jit

    def record(function, **options):
        asked.append((function.__name__, options.pop("compiler_options", None)))
        return jit(function, **options)

    config, model = default_config(), tiny_model()
    config.update({"encryption": "none", "deterministic": True, "label_smoothing": 0.123})
    monkeypatch.setattr(jax, "jit", record)
    monkeypatch.setattr("ppvit_jax.training.step.compiler_options", lambda platform, **flags: {platform: flags})
    compile_steps(model, config, 1)
    asked_for = {"cpu": {"deterministic": True, "keeps_order": False}}
    assert asked == [(name, asked_for) for name in ("train_step", "eval_step", "logits_step")]
    assert models.build(model).config == model
