"""Compilation of the functions of a run: the precision of their products, and the compiler's options for a platform."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def fix_precision(
    function: Callable[Parameters, Result], dtype: str, precision: str = "highest"
) -> Callable[Parameters, Result]:
    """Returns a function whose matrix products and convolutions have a named precision wherever it is compiled.

    The precision is that of float32 products. bfloat16 operands have one precision, so that a bfloat16 model is left as
    it is. Gradients that are taken inside the function have the same precision.

    Args:
      function: a function that JAX traces.
      dtype: compute dtype: "float32", "bfloat16" or "float64".
      precision: "default", "high" or "highest", as for `jax.default_matmul_precision`. "highest" is float32 on every
        device (on a TPU, six bfloat16 products). The other two are TensorFloat-32 on an NVIDIA GPU, and one or three
        bfloat16 products on a TPU.
    """
    if dtype == "bfloat16":
        return function

    @functools.wraps(function)
    def traced(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        # A setting of the process would be lost where a function is compiled outside its context.
        with jax.default_matmul_precision(precision):
            return function(*args, **kwargs)

    return traced


def compiler_options(platform: str, *, deterministic: bool = False, keeps_order: bool = False) -> dict[str, Any] | None:
    """Returns the options of `jax.jit` for the programs of a run, or None without any.

    Args:
      platform: "cpu", "gpu" or "tpu", as `jax.Device.platform` names it.
      deterministic: asks for the same bits in every run. On a GPU, XLA then takes the first kernel and not the fastest,
        and refuses operations that are not deterministic (https://openxla.org/xla/determinism). XLA's source passes
        this on to the backward pass of cuDNN's attention (github.com/openxla/xla/pull/14125). We have not tried it on a
        GPU. Other platforms have no such option.
      keeps_order: asks a GPU's compiler not to move operations in order to compute while it sends. Programs for several
        GPUs would postpone gradients of kernels, and keep values for them that `config.remat` computes again: the
        memory of eight blocks of ViT-B on each of four GPUs is 1.1 GB with it and 2.9 GB without (64 images, bfloat16).
    """
    if platform != "gpu":
        return None
    # By an estimate from the compiled programs, ViT-B/16's step at batch 256 takes 65 ms with products in Triton, and
    # 56 ms with products in cuBLAS (H200, bfloat16).
    options: dict[str, Any] = {"xla_gpu_enable_triton_gemm": False}
    options |= {"xla_gpu_deterministic_ops": True} if deterministic else {}
    return options | ({"xla_gpu_enable_latency_hiding_scheduler": False} if keeps_order else {})
