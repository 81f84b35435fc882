"""Collectives of a training step at the width of ViT-B/16, from programs for four CPU devices."""

import functools
import math
from typing import Any

import pytest
from helpers.collectives import compile_on_devices

from ppvit_jax import models
from ppvit_jax.training import scaling

pytestmark = pytest.mark.slow

DEVICES = 4
WIDTH, MLP, CLASSES = 768, 3072, 10
# Small models are divided well even if the constraints of fully sharded training are missing.
MODEL: dict[str, Any] = {
    "patch_size": 16,
    "hidden_size": WIDTH,
    "layers": 1,
    "heads": 12,
    "mlp_size": MLP,
    "image_size": 224,
    "num_classes": CLASSES,
}
SHAPE = models.ViTConfig(**MODEL)
SHAPES = models.parameter_shapes(SHAPE)
PARAMETERS = sum(map(math.prod, SHAPES.values()))
KERNELS = sum(math.prod(shape) for name, shape in SHAPES.items() if name.endswith("kernel"))
# The scales and biases of two folded normalizations, and the class token, which is part of the position embedding.
FOLLOW_FROM_OTHERS = (2 * 2 + 1) * WIDTH


@functools.cache
def exchanged(sharding: str, **settings: Any) -> dict[str, tuple[int, float]]:
    """Returns the number of collectives and their float32 values, by operation; the count of hits is left out."""
    rows = compile_on_devices(DEVICES, sharding, MODEL, images=8, **settings)["exchanges"]
    assert {dtype for _, dtype, _, _ in rows} <= {"f32", "s32"}
    return {op: (count, size / 4) for op, dtype, count, size in rows if dtype == "f32"}


def test_data_parallel_devices_add_up_each_gradient_and_the_loss_in_one_collective():
    assert exchanged("data_parallel") == {"all-reduce": (1, PARAMETERS - FOLLOW_FROM_OTHERS + 1)}
    sent = scaling.sent_bytes(SHAPE, scaling.Setup(batch_size=DEVICES, devices=DEVICES))
    assert math.isclose(sent, 2 * 3 / 4 * 4 * (PARAMETERS - FOLLOW_FROM_OTHERS), rel_tol=1e-3)


def test_data_parallel_devices_add_up_the_gradients_of_a_bfloat16_step_in_float32():
    found = exchanged("data_parallel", dtype="bfloat16")
    # A CPU's products have 8 rows more in bfloat16.
    (count, values) = found.pop("all-reduce")
    assert count == 1 and 1 <= values / (PARAMETERS - FOLLOW_FROM_OTHERS + 1) < 1.02 and not found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fully_sharded_devices_exchange_parameters_and_gradients_and_no_activations(dtype):
    found = {op: row for op, row in exchanged("fully_sharded", dtype=dtype).items() if row[1] > 0.01 * PARAMETERS}
    assert found.keys() == {"all-gather", "all-reduce"}
    (gatherings, gathered), (_, reduced) = found["all-gather"], found["all-reduce"]
    # Each kernel is gathered in the forward pass, and again in the backward pass; a CPU's compiler merges some of them.
    assert 0.99 * KERNELS < gathered < 2.02 * PARAMETERS
    # Layer by layer: queries, keys, values, projection, two of the MLP, the embedding, and the head.
    assert gatherings >= 8
    # XLA has no reduce-scatter on a CPU.
    assert 0.99 < reduced / PARAMETERS < 1.02
