"""Memory, traffic and FLOPs of training a Vision Transformer on one or many devices, by arithmetic."""

import dataclasses
import math

from ppvit_jax import models
from ppvit_jax.config import SHARDINGS
from ppvit_jax.errors import UserError
from ppvit_jax.models import ViTConfig
from ppvit_jax.models.vit import FAMILY
from ppvit_jax.training.devices import split_axis

# Copies of the parameters that an optimizer keeps: momentum; first and second moment.
OPTIMIZER_COPIES = {"sgd": 1, "adam": 2, "adamw": 2}
_ELEMENT_BYTES = {"bfloat16": 2, "float32": 4, "float64": 8}
# Bytes of an element of parameters, gradients and optimizer state, whatever the compute dtype.
_FLOAT32 = 4


@dataclasses.dataclass(frozen=True)
class StepCost:
    """Memory, traffic and computation of one training step on one device.

    parameters, gradients, optimizer: bytes of float32.
    accumulated: bytes of the sum of the gradients of the parts of a batch, where there are several.
    working_copy: bytes of the whole parameters in the compute dtype, where the step computes with others than it keeps:
      those of fully sharded parameters, gathered, or of float32 ones, rounded.
    activations: bytes that the forward pass keeps for the backward pass; see `activation_bytes`.
    attention_weights: those of them that grow with the square of the number of tokens.
    sent: bytes over the links, see `sent_bytes`.
    flops: of matrix products; see `forward_flops`.
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
        """Bytes at the peak: what was kept for the backward pass leaves as fast as gradients come, or faster."""
        kept = self.parameters + self.accumulated + self.optimizer + self.working_copy
        return kept + max(self.gradients, self.activations)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """The setup of a training step.

    batch_size: images in a batch, over all devices and all parts of an accumulation.
    devices: number of devices that share the batch.
    sharding: "data_parallel", every device keeps all parameters; or "fully_sharded", every large tensor of
      parameters, gradients and optimizer state is kept in parts (ZeRO, arXiv 1910.02054, stage 3).
    optimizer: one of OPTIMIZER_COPIES.
    accumulation: parts of a batch that are computed one after another.

    Raises:
      UserError: an unknown sharding, a batch that devices and accumulation do not divide, or numbers below 1.
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
            raise UserError("batch size, devices and accumulation need at least 1")
        if self.batch_size % (self.devices * self.accumulation):
            raise UserError(
                f"a batch of {self.batch_size} cannot be shared by {self.devices} devices in {self.accumulation} "
                f"parts: use a multiple of {self.devices * self.accumulation}"
            )


def step_cost(config: ViTConfig, setup: Setup) -> StepCost:
    """Returns the cost of a training step of a model of this shape and compute dtype on each device."""
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
    """Returns the floating-point operations of one image's forward pass: a multiplication and an addition are two.

    Matrix products alone, 2 * m * n * k each: patch embedding, queries, keys and values, attention logits, attention
    values, projection, MLP, the layer before the head if any, head. The gradients take twice as many, so that a
    training step takes 3 * forward_flops * batch (Kaplan et al., arXiv 2001.08361, section 2.1).
    """
    hidden, patches = config.hidden_size, config.grid_size**2
    tokens = patches + FAMILY.prefix_tokens
    block = tokens * (4 * hidden**2 + 2 * hidden * config.mlp_size) + 2 * tokens**2 * hidden
    width = config.representation_size or hidden
    representation = hidden * width if config.representation_size else 0
    embedding = patches * 3 * config.patch_size**2 * hidden
    return 2 * (embedding + config.layers * block + representation + width * config.num_classes)


def _shapes(config: ViTConfig) -> list[tuple[int, ...]]:
    # What attention is computed by changes no parameter, and need not be here.
    return list(models.parameter_shapes(dataclasses.replace(config, attention="xla")).values())


def parameter_count(config: ViTConfig) -> int:
    """Returns the number of parameters."""
    return sum(map(math.prod, _shapes(config)))


def kept_parameters(config: ViTConfig, devices: int) -> int:
    """Returns how many parameters each of `devices` keeps if they share each large tensor with an axis they divide."""

    def kept(shape: tuple[int, ...]) -> int:
        return math.prod(shape) // (1 if split_axis(shape, devices) is None else devices)

    return sum(map(kept, _shapes(config)))


def activation_bytes(config: ViTConfig) -> int:
    """Returns the bytes that one image's forward pass keeps for the backward pass, an estimate.

    In each block 12 arrays [tokens, hidden] (of each layer normalization the centered, the normalized and the result;
    queries, keys and values; what attention gives; the residual stream twice), 3 arrays [tokens, MLP] (GELU's input,
    its tanh and its result) and the attention weights: what XLA keeps on a CPU without rematerialization. They have the
    compute dtype, but the normalizations' centered and normalized ones at least float32. Besides, the image in patches.
    """
    element = _ELEMENT_BYTES[config.dtype]
    patches = config.grid_size**2
    hidden = 4 * max(element, _FLOAT32) + 8 * element
    block = (patches + FAMILY.prefix_tokens) * (hidden * config.hidden_size + 3 * element * config.mlp_size)
    image = patches * 3 * config.patch_size**2 * element
    return image + config.layers * block + attention_weight_bytes(config)


def attention_weight_bytes(config: ViTConfig) -> int:
    """Returns the bytes of one image's attention weights [heads, tokens, tokens] of all blocks, an estimate.

    Those after the softmax, which is in float32 or more, and those that are rounded to a smaller compute dtype. The
    attention "cudnn" computes them again in the backward pass (FlashAttention, arXiv 2205.14135) and keeps none.
    """
    if config.attention == "cudnn":
        return 0
    element = _ELEMENT_BYTES[config.dtype]
    tokens = config.grid_size**2 + FAMILY.prefix_tokens
    weight = max(element, _FLOAT32) + (element if element < _FLOAT32 else 0)
    return config.layers * config.heads * tokens**2 * weight


def sent_bytes(config: ViTConfig, devices: int, sharding: str) -> int:
    """Returns the bytes that a device sends for each part of a batch, by collective operations in a ring.

    Data parallel: an all-reduce of the gradients, 2 (n - 1) / n of their bytes (Patarasuk and Yuan, 2009). Fully
    sharded: parameters gathered for the forward and again for the backward pass, gradients reduced and scattered,
    (n - 1) / n each (ZeRO, arXiv 1910.02054, section 7.2). All in float32. A compiler that keeps what it gathered for
    the forward pass sends a third less; then the working copy stays for the whole step.
    """
    times = 3 if sharding == "fully_sharded" else 2
    return times * (devices - 1) * _FLOAT32 * parameter_count(config) // devices
