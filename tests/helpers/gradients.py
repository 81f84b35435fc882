"""Inputs of matrix products, and functions with their gradients, for comparisons in float64."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def random_operands(dtype: str, *shapes: tuple[int, ...]) -> tuple[list[np.ndarray], list[jax.Array]]:
    """Returns arrays with values that the compute dtype represents exactly, as float64 and as float32 or float64."""
    random = np.random.default_rng(0)
    wide = "float64" if dtype == "float64" else "float32"
    rounded = [jnp.asarray(random.standard_normal(shape), dtype) for shape in shapes]
    return [np.asarray(array, np.float64) for array in rounded], [array.astype(wide) for array in rounded]


def output_and_gradients(function: Callable[..., jax.Array], arrays: Sequence[Any], cotangent: Any) -> list[np.ndarray]:
    """Returns the output of a function, and its gradients for each array, as float64."""

    @jax.jit
    def compute(arrays, cotangent):
        output, pull_back = jax.vjp(function, *arrays)
        return output, *pull_back(cotangent)

    return [np.asarray(array, np.float64) for array in compute(tuple(arrays), cotangent)]
