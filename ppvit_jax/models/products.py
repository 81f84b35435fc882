"""Matrix products of a Vision Transformer with their gradients, written so that they run fast on each device.

"bfloat16" means bfloat16 operands and float32 accumulation everywhere. An accelerator rounds the sums to bfloat16,
which halves the memory traffic; a CPU keeps them in float32, because it computes in nothing smaller. Gradients of
parameters are float32 sums on every device, and among devices as `Target.reduce_dtype` says.

On a CPU, XLA (0.10 and 0.11) multiplies bfloat16 fast only if the left operand is summed over its last axis. The
narrower operand of a kernel's gradient is therefore transposed there.
"""

import functools
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ppvit_jax.models.target import Target, default_target

# Extra rows that keep XLA from folding a transposition into a product, which would then not run in bfloat16.
_EXTRA_ROWS = 8


def activation_dtype(dtype: DTypeLike, target: Target | None = None) -> np.dtype:
    """Returns the dtype of the values between products, given the compute dtype."""
    return jnp.promote_types(dtype, jnp.float32) if (target or default_target()).is_cpu else jnp.dtype(dtype)


def dense(x: jax.Array, kernel: jax.Array, dtype: DTypeLike, target: Target | None = None) -> jax.Array:
    """Multiplies the last axis of an array by a matrix.

    Args:
      x: [..., inputs], floating point.
      kernel: [inputs, outputs], floating point.
      dtype: compute dtype, to which the operands are cast.
      target: the devices to compile for; None for JAX's default devices.

    Returns:
      [..., outputs] in `activation_dtype(dtype, target)`.
    """
    chex.assert_type([x, kernel], float)
    chex.assert_shape(kernel, (x.shape[-1], None))
    return linear(x, [(kernel, None)], dtype, target)[0]


def linear(
    x: jax.Array,
    layers: Sequence[tuple[jax.Array, jax.Array | None]],
    dtype: DTypeLike,
    target: Target | None = None,
) -> tuple[jax.Array, ...]:
    """Computes several dense layers of one input: x kernel + bias for each.

    The gradient of the input is dq Wq^T + (dk Wk^T + dv Wv^T), so that an accelerator adds within its products.

    Args:
      x: [..., inputs], floating point.
      layers: kernel [inputs, outputs] and bias [outputs] of each layer, floating point; None for no bias.
      dtype: compute dtype, to which the operands of the products are cast.
      target: the devices to compile for; None for JAX's default devices.

    Returns:
      For each layer [..., outputs] in `activation_dtype(dtype, target)`.
    """
    target = target or default_target()
    kernels, biases = zip(*layers, strict=True)
    outputs: Any = _linear(jnp.dtype(dtype), target, x, tuple(kernels), tuple(biases))
    return outputs


def sum_products(equation: str, *operands: jax.Array, result: DTypeLike = jnp.float32) -> jax.Array:
    """Computes an einsum whose sums are in float32, or float64 for float64 operands.

    Args:
      equation: as for `jnp.einsum`.
      *operands: floating point, of one dtype.
      result: smallest dtype of the result. It has at least that of the operands.
    """
    return jnp.einsum(equation, *operands, preferred_element_type=jnp.promote_types(operands[0].dtype, result))


def multiply_transposed(a: jax.Array, b: jax.Array, result: DTypeLike = jnp.float32) -> jax.Array:
    """Computes a^T b on a CPU: [..., k, m], [..., k, n] -> [..., m, n]; see `sum_products`."""
    a = a.swapaxes(-1, -2)
    if a.dtype != jnp.bfloat16:
        return sum_products("...mk,...kn->...mn", a, b, result=result)
    padded = jnp.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, _EXTRA_ROWS), (0, 0)])
    return sum_products("...mk,...kn->...mn", padded, b, result=result)[..., : a.shape[-2], :]


_Arrays = tuple[jax.Array, ...]
_Biases = tuple[jax.Array | None, ...]


def _round(dtype: np.dtype, target: Target, kernels: _Arrays) -> _Arrays:
    return tuple(target.gather(kernel.astype(dtype)) for kernel in kernels)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _linear(dtype: np.dtype, target: Target, x: jax.Array, kernels: _Arrays, biases: _Biases) -> _Arrays:
    return _linear_forward(dtype, target, x, kernels, biases)[0]


def _linear_forward(
    dtype: np.dtype, target: Target, x: jax.Array, kernels: _Arrays, biases: _Biases
) -> tuple[_Arrays, tuple]:
    result = activation_dtype(dtype, target)
    rows, operands = x.astype(dtype), _round(dtype, target, kernels)
    # An accelerator's products write their result in the compute dtype.
    products = [jnp.matmul(rows, operand, preferred_element_type=result) for operand in operands]
    outputs = tuple(y if bias is None else y + bias.astype(y.dtype) for y, bias in zip(products, biases, strict=True))
    # Zero-sized arrays bring the dtypes of the arguments to the backward pass.
    dtypes = jax.tree.map(lambda array: jnp.empty(0, array.dtype), (x, kernels, biases))
    # The backward pass gathers divided kernels again, so that each device keeps whole kernels of one layer only.
    return outputs, (rows, operands if target.mesh is None else kernels, dtypes)


def _linear_backward(
    dtype: np.dtype, target: Target, saved: tuple, gradients: _Arrays
) -> tuple[jax.Array, _Arrays, _Biases]:
    rows, operands, (x_like, kernels_like, biases_like) = saved
    if target.mesh is not None:
        # Without the barrier, XLA would keep what the forward pass has gathered.
        operands = _round(dtype, target, jax.lax.optimization_barrier(operands))
    rounded = [gradient.astype(dtype) for gradient in gradients]
    result = activation_dtype(dtype, target)
    parts = [
        jnp.einsum("...n,kn->...k", gradient, operand, preferred_element_type=result)
        for gradient, operand in zip(rounded, operands, strict=True)
    ]
    x_gradient = functools.reduce(lambda total, part: part + total, reversed(parts))

    # XLA adds up what each device's product returns, in the dtype of the product's result.
    reduced = jnp.dtype(target.reduce_dtype if target.devices > 1 else jnp.float32)

    def kernel_gradient(gradient: jax.Array) -> jax.Array:
        if not target.is_cpu:
            return sum_products("...k,...n->kn", rows, gradient, result=reduced)
        a, b = (array.reshape(-1, array.shape[-1]) for array in (rows, gradient))
        if a.shape[1] <= b.shape[1]:
            return multiply_transposed(a, b, reduced)
        return multiply_transposed(b, a, reduced).T

    kernel_gradients = tuple(
        kernel_gradient(gradient).astype(like.dtype) for gradient, like in zip(rounded, kernels_like, strict=True)
    )
    wide = jnp.promote_types(dtype, jnp.float32)
    bias_gradients = tuple(
        None if like is None else gradient.sum(range(gradient.ndim - 1), dtype=wide).astype(like.dtype)
        for gradient, like in zip(gradients, biases_like, strict=True)
    )
    return x_gradient.astype(x_like.dtype), kernel_gradients, bias_gradients


_linear.defvjp(_linear_forward, _linear_backward)
