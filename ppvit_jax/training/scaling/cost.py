"""Memory, traffic and computation of a training step on one device."""

import dataclasses

from ppvit_jax.models import ViTConfig
from ppvit_jax.training.scaling.activations import (
    activation_bytes,
    attention_weight_bytes,
    working_copy_bytes,
    workspace_bytes,
)
from ppvit_jax.training.scaling.products import step_flops, target_of
from ppvit_jax.training.scaling.setup import FLOAT32_BYTES, OPTIMIZER_COPIES, Setup
from ppvit_jax.training.scaling.tensors import count, find_tensors
from ppvit_jax.training.scaling.traffic import sent_bytes


@dataclasses.dataclass(frozen=True)
class StepCost:
    """Memory, traffic and computation of one training step on one device.

    All sizes are in bytes.

    Attributes:
      parameters: float32 parameters, low-rank factors among them.
      gradients: float32 gradients of the trained tensors.
      accumulated: sums of the gradients, if a batch is computed in several parts.
      optimizer: float32 optimizer state of the trained tensors.
      average: float32 average of the weights.
      working_copy: kernels in the compute dtype; see `working_copy_bytes`.
      activations: values that exist between the forward and the backward pass; see `activation_bytes`.
      attention_weights: the part of `activations` that grows with the square of the number of tokens.
      memory: peak memory. Activations are freed at least as fast as gradients are allocated, so that the larger of the
        two counts. One device updates each tensor as soon as it has the gradient, and keeps no gradients.
      sent: traffic over the links; see `sent_bytes`.
      flops: floating-point operations of the matrix products; see `step_flops`.
    """

    parameters: int
    gradients: int
    accumulated: int
    optimizer: int
    average: int
    working_copy: int
    activations: int
    attention_weights: int
    memory: int
    sent: int
    flops: int


def step_cost(config: ViTConfig, setup: Setup) -> StepCost:
    """Returns the cost of a training step on each device, for a model with this shape, compute dtype and target.

    Raises:
      UserError: an expression in `setup.tuned_layers` is invalid or matches nothing.
    """
    tensors, parts = find_tensors(config, setup), setup.devices if setup.sharding == "fully_sharded" else 1
    trained, averaged, frozen, differentiated = (
        FLOAT32_BYTES * count(shapes, parts)
        for shapes in (tensors.trained, tensors.averaged, tensors.frozen, tensors.differentiated)
    )
    sums = 0
    if setup.accumulation > 1:
        # The loop of a TPU's program holds the old sum, the new one, and the gradients of a part. Several GPUs add up
        # the gradients of a part before its sum.
        sums = 3 if target_of(config).platform == "tpu" else 2 if setup.devices > 1 else 1
    average = averaged if setup.ema_decay else 0
    state = averaged + frozen + sums * trained + OPTIMIZER_COPIES[setup.optimizer] * trained + average
    copies, activations = working_copy_bytes(config, setup), setup.images * activation_bytes(config, setup)
    exchanged = differentiated if setup.devices > 1 else 0
    return StepCost(
        parameters=averaged + frozen,
        gradients=trained,
        accumulated=sums * trained,
        optimizer=OPTIMIZER_COPIES[setup.optimizer] * trained,
        average=average,
        working_copy=copies,
        activations=activations,
        attention_weights=setup.images * attention_weight_bytes(config, setup),
        memory=state + copies + max(activations, exchanged) + workspace_bytes(config, setup),
        sent=sent_bytes(config, setup),
        flops=step_flops(config, setup),
    )
