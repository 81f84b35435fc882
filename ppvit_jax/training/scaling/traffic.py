"""Bytes that devices send in a training step."""

import math

from ppvit_jax.models import ViTConfig
from ppvit_jax.training.devices import split_axis
from ppvit_jax.training.scaling.products import is_recomputed, target_of
from ppvit_jax.training.scaling.setup import ELEMENT_BYTES, FLOAT32_BYTES, Setup
from ppvit_jax.training.scaling.tensors import find_tensors, is_kernel, is_scaled, place


def sent_bytes(config: ViTConfig, setup: Setup) -> int:
    """Returns the bytes that a device sends in a step, with collective operations in a ring.

    Gradients of kernels have the reduce dtype, those of other parameters float32, and gathered kernels the compute
    dtype:
      data parallel: all-reduces the gradients, 2 (n - 1) / n of their bytes (Patarasuk and Yuan, 2009).
      fully sharded: gathers the kernels for the forward pass, for each gradient of an input, and to compute a block
        again. It reduce-scatters the gradients, (n - 1) / n each (ZeRO, arXiv 1910.02054, section 7.2). Gradients of
        tensors that are not divided are all-reduced.
    Frozen parameters have no gradient. The gradient of a kernel with low-rank factors is exchanged before it becomes
    that of the factors. A CPU, which computes in nothing smaller, sends float32 only.

    Each part of an accumulation sends as much. But XLA adds up the gradients of the parts after the first one before
    data parallel GPUs exchange them, if a gradient is not multiplied by factors first.
    """
    tensors, values = find_tensors(config, setup), 0
    is_on_gpus = target_of(config).platform == "gpu" and not setup.is_divided
    for name, shape in tensors.model.items():
        size, where = math.prod(shape), place(config, name)
        is_divided = setup.is_divided and is_kernel(name) and split_axis(shape, setup.devices) is not None
        if is_divided:
            gatherings = 1 + (tensors.first < where) + is_recomputed(config, setup, where)
            values += setup.accumulation * gatherings * ELEMENT_BYTES[config.dtype] * size
        if name in tensors.differentiated:
            element = ELEMENT_BYTES[setup.reduce_dtype] if is_kernel(name) else FLOAT32_BYTES
            is_summed = is_on_gpus and place(config, name)[0] <= config.layers and not is_scaled(config, name)
            times = min(setup.accumulation, 2) if is_summed else setup.accumulation
            values += times * (1 if is_divided else 2) * element * size
    return values * (setup.devices - 1) // setup.devices
