"""Low-rank adaptation of dense layers, LoRA (arXiv 2106.09685), as pure functions on parameter trees.

The kernel W of a chosen layer becomes W + alpha / rank * A B (section 4.1 of the paper). Here W is a matrix
[inputs, outputs], A is [inputs, rank], and B is [rank, outputs]. The factors lie in a tree beside the parameters, under
the layer's name. No encryption permutes the kernels of these layers, so that the same factors belong to a plain model
and to an adapted one.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ppvit_jax.errors import UserError
from ppvit_jax.models.model import Params

# Dense layers of the encoder's blocks and of attention pooling. In Google's layout, the first three map a token to
# heads, and "out" maps heads to a token.
LAYERS = ("query", "key", "value", "out", "Dense_0", "Dense_1")
_TO_HEADS = LAYERS[:3]
# Names of the factors A and B.
FACTORS = ("lora_a", "lora_b")


def find_layers(shapes: Mapping[str, tuple[int, ...]], patterns: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Finds the layers that regular expressions choose.

    Args:
      shapes: the shapes of a model's parameters by name.
      patterns: regular expressions. One chooses a layer if it matches the layer's own name, one of LAYERS, as a whole,
        or its whole path, such as "Transformer/encoderblock_0/MlpBlock_3/Dense_0".

    Returns:
      For each layer, by its path, the shape of its kernel as a matrix.

    Raises:
      UserError: an expression is invalid or matches nothing, or the model has no such layers.
    """
    matrices = {}
    for name, shape in shapes.items():
        path, _, kind = name.rpartition("/")
        own = path.rpartition("/")[2]
        if kind == "kernel" and own in LAYERS:
            inputs = shape[0] if own in _TO_HEADS else math.prod(shape[:-1])
            matrices[path] = (inputs, math.prod(shape) // inputs)
    if not matrices:
        raise UserError(
            f"config.tuning.method=lora needs a model with the layers {', '.join(LAYERS)}, which Vision Transformers "
            "have: choose one, or set config.tuning.method=full"
        )
    chosen: set[str] = set()
    for pattern in patterns:
        try:
            matched = {
                path
                for path in matrices
                if re.fullmatch(pattern, path.rpartition("/")[2]) or re.fullmatch(pattern, path)
            }
        except re.error as error:
            raise UserError(f"config.tuning.layers has an invalid regular expression {pattern!r}: {error}") from None
        if not matched:
            raise UserError(
                f"config.tuning.layers: {pattern!r} matches no layer; use expressions for {', '.join(LAYERS)}"
            )
        chosen |= matched
    if not chosen:
        raise UserError(f"config.tuning.layers is empty: name some of {', '.join(LAYERS)}")
    return {path: shape for path, shape in matrices.items() if path in chosen}


def init_factors(layers: Mapping[str, tuple[int, int]], rank: int, seed: int, dtype: Any = np.float32) -> Params:
    """Returns new factors: A is Gaussian with variance 1 / inputs, and B is zero, so that training starts at W.

    Args:
      layers: see `find_layers`.
      rank: number of columns of A and of rows of B.
      seed: seed of A. It gives the same values on every device.
      dtype: dtype of the factors.

    Returns:
      A tree of numpy arrays.
    """
    arrays = {}
    for number, (path, (inputs, outputs)) in enumerate(sorted(layers.items())):
        gaussian = np.random.default_rng((seed, number)).standard_normal((inputs, rank))
        first, second = (f"{path}/{factor}" for factor in FACTORS)
        arrays[first] = (gaussian / math.sqrt(inputs)).astype(dtype)
        arrays[second] = np.zeros((rank, outputs), dtype)
    return unflatten_dict(arrays, sep="/")


def is_factor(name: str) -> bool:
    """Returns True for the name of a factor, such as "Transformer/encoderblock_0/.../query/lora_a"."""
    return name.rpartition("/")[2] in FACTORS


def merge_factors(params: Params, factors: Params, alpha: float) -> Params:
    """Returns a model's parameters with W + alpha / rank * A B in place of each kernel W that has factors.

    Args:
      params: the model's parameters, a nested tree of numpy or JAX arrays.
      factors: tree of the factors alone.
      alpha: the numerator of the scale.

    Raises:
      UserError: the model lacks a layer, or the layer has another shape than its factors.
    """
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    pairs: dict[str, Any] = flatten_dict(factors, sep="/")
    for name in [name for name in pairs if name.endswith(FACTORS[0])]:
        layer = name.rpartition("/")[0]
        kernel, a, b = flat.get(f"{layer}/kernel"), pairs[name], pairs.get(f"{layer}/{FACTORS[1]}")
        if kernel is None or b is None or a.shape[0] * b.shape[1] != kernel.size or a.shape[1] != b.shape[0]:
            raise UserError(
                f"the factors of {layer} do not fit the model's layer: use the model that they were made for"
            )
        flat[f"{layer}/kernel"] = kernel + (alpha / a.shape[1] * _multiply(a, b)).reshape(kernel.shape)
    return unflatten_dict(flat, sep="/")


def _multiply(a: Any, b: Any) -> Any:
    if isinstance(a, np.ndarray):
        return a @ b
    # The factors are float32 in a bfloat16 run, too.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
