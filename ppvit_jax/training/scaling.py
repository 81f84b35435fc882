"""Estimates of memory, traffic and FLOPs for training a Vision Transformer on one or many devices."""

import dataclasses
import math

from ppvit_jax import models
from ppvit_jax.config import SHARDINGS
from ppvit_jax.errors import UserError
from ppvit_jax.models import ViTConfig
from ppvit_jax.models.vit import FAMILY
from ppvit_jax.training.devices import split_axis

# Copies of the parameters in the optimizer state: momentum, or first and second moment.
OPTIMIZER_COPIES = {"sgd": 1, "adam": 2, "adamw": 2}
_ELEMENT_BYTES = {"bfloat16": 2, "float32": 4, "float64": 8}
# Bytes per element of parameters, gradients and optimizer state, for every compute dtype.
_FLOAT32 = 4


@dataclasses.dataclass(frozen=True)
class StepCost:
    """Memory, traffic and computation of one training step on one device.

    All sizes are in bytes.

    Attributes:
      parameters: float32 parameters.
      gradients: float32 gradients.
      accumulated: sum of the gradients, if a batch is computed in several parts.
      optimizer: float32 optimizer state.
      working_copy: all parameters in the compute dtype. It exists if parameters are gathered from a fully sharded
        state, or rounded from float32.
      activations: values that the forward pass keeps for the backward pass; see `activation_bytes`.
      attention_weights: the part of `activations` that grows with the square of the number of tokens.
      sent: traffic over the links; see `sent_bytes`.
      flops: floating-point operations of the matrix products; see `forward_flops`.
    """

    parameters: int
    gradients: int
    accumulated: int
    optimizer: int
    working_copy: int
    activations: int
    attention_weights: int
    sent: int
    flops: int

    @property
    def memory(self) -> int:
        """Peak memory in bytes: activations are freed at least as fast as gradients are allocated."""
        kept = self.parameters + self.accumulated + self.optimizer + self.working_copy
        return kept + max(self.gradients, self.activations)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """Setup of a training step.

    Attributes:
      batch_size: images in a global batch, over all devices and all parts of an accumulation.
      devices: number of devices that share the batch.
      sharding: "data_parallel": every device keeps all parameters. "fully_sharded": every large tensor of parameters,
        gradients and optimizer state is split among the devices (ZeRO stage 3, arXiv 1910.02054).
      optimizer: a key of OPTIMIZER_COPIES.
      accumulation: number of parts of a batch that are computed one after another.

    Raises:
      UserError: the sharding is unknown, a number is below 1, or the batch size is not a multiple of devices times
        accumulation.
    """

    batch_size: int
    devices: int = 1
    sharding: str = "data_parallel"
    optimizer: str = "sgd"
    accumulation: int = 1

    def __post_init__(self) -> None:
        if self.sharding not in SHARDINGS:
            raise UserError(f"unknown sharding {self.sharding!r}: use {' or '.join(SHARDINGS)}")
        if min(self.batch_size, self.devices, self.accumulation) < 1:
            raise UserError("batch size, devices and accumulation must be at least 1")
        if self.batch_size % (self.devices * self.accumulation):
            raise UserError(
                f"a batch of {self.batch_size} cannot be shared by {self.devices} devices in {self.accumulation} "
                f"parts: use a multiple of {self.devices * self.accumulation}"
            )


def step_cost(config: ViTConfig, setup: Setup) -> StepCost:
    """Returns the cost of a training step on each device, for a model with this shape and compute dtype."""
    devices, accumulation = setup.devices, setup.accumulation
    images = setup.batch_size // (devices * accumulation)
    sharded = setup.sharding == "fully_sharded"
    kept = _FLOAT32 * kept_parameters(config, devices if sharded else 1)
    element = _ELEMENT_BYTES[config.dtype]
    return StepCost(
        parameters=kept,
        gradients=kept,
        accumulated=kept if accumulation > 1 else 0,
        optimizer=kept * OPTIMIZER_COPIES[setup.optimizer],
        working_copy=element * parameter_count(config) if (sharded and devices > 1) or element != _FLOAT32 else 0,
        activations=images * activation_bytes(config),
        attention_weights=images * attention_weight_bytes(config),
        sent=accumulation * sent_bytes(config, devices, setup.sharding),
        flops=3 * forward_flops(config) * setup.batch_size // devices,
    )


def forward_flops(config: ViTConfig) -> int:
    """Returns the floating-point operations of the forward pass of one image.

    Counts matrix products only, 2 * m * n * k each: patch embedding, queries, keys and values, attention logits,
    attention values, projection, MLP, the layer before the head if there is one, and head. The gradients take twice as
    many, so a training step takes 3 * forward_flops * batch (Kaplan et al., arXiv 2001.08361, section 2.1).
    """
    hidden, patches = config.hidden_size, config.grid_size**2
    tokens = patches + FAMILY.prefix_tokens
    block = tokens * (4 * hidden**2 + 2 * hidden * config.mlp_size) + 2 * tokens**2 * hidden
    width = config.representation_size or hidden
    representation = hidden * width if config.representation_size else 0
    embedding = patches * 3 * config.patch_size**2 * hidden
    return 2 * (embedding + config.layers * block + representation + width * config.num_classes)


def _shapes(config: ViTConfig) -> list[tuple[int, ...]]:
    # The attention kernel changes no parameter, and this machine may lack the one that the config names.
    return list(models.parameter_shapes(dataclasses.replace(config, attention="xla")).values())


def parameter_count(config: ViTConfig) -> int:
    """Returns the number of parameters."""
    return sum(map(math.prod, _shapes(config)))


def kept_parameters(config: ViTConfig, devices: int) -> int:
    """Returns the number of parameters that each device keeps if every large tensor is split where it can be."""

    def kept(shape: tuple[int, ...]) -> int:
        return math.prod(shape) // (1 if split_axis(shape, devices) is None else devices)

    return sum(map(kept, _shapes(config)))


def activation_bytes(config: ViTConfig) -> int:
    """Returns an estimate of the bytes that the forward pass of one image keeps for the backward pass.

    XLA on a CPU, without rematerialization, keeps about as much as these arrays in each block:
      8 arrays [tokens, hidden]: the standardized input of attention and MLP; queries, keys and values; the output of
        attention; the residual stream twice.
      3 arrays [tokens, MLP]: GELU's input and output, and room for a gradient.
      The attention weights; see `attention_weight_bytes`.
    All have the compute dtype. The image in patches is kept as well.
    """
    element = _ELEMENT_BYTES[config.dtype]
    patches = config.grid_size**2
    hidden = 8 * element
    block = (patches + FAMILY.prefix_tokens) * (hidden * config.hidden_size + 3 * element * config.mlp_size)
    image = patches * 3 * config.patch_size**2 * element
    return image + config.layers * block + attention_weight_bytes(config)


def attention_weight_bytes(config: ViTConfig) -> int:
    """Returns an estimate of the bytes of one image's attention weights [heads, tokens, tokens] in all blocks.

    Counts the output of the softmax, which is at least float32, and its rounded copy if the compute dtype is smaller.
    Attention "cudnn" recomputes the weights in the backward pass (FlashAttention, arXiv 2205.14135) and keeps none.
    """
    if config.attention == "cudnn":
        return 0
    element = _ELEMENT_BYTES[config.dtype]
    tokens = config.grid_size**2 + FAMILY.prefix_tokens
    weight = max(element, _FLOAT32) + (element if element < _FLOAT32 else 0)
    return config.layers * config.heads * tokens**2 * weight


def sent_bytes(config: ViTConfig, devices: int, sharding: str) -> int:
    """Returns the bytes that a device sends for each part of a batch, with collective operations in a ring.

    All values are sent in float32:
      data parallel: all-reduces the gradients, 2 (n - 1) / n of their bytes (Patarasuk and Yuan, 2009).
      fully sharded: gathers the parameters for the forward and again for the backward pass, and reduce-scatters the
        gradients, (n - 1) / n each (ZeRO, arXiv 1910.02054, section 7.2).
    A compiler that keeps the gathered parameters for the backward pass sends a third less; then the working copy lives
    for the whole step.
    """
    times = 3 if sharding == "fully_sharded" else 2
    return times * (devices - 1) * _FLOAT32 * parameter_count(config) // devices
