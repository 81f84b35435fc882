"""Estimates of memory, traffic and FLOPs for training a Vision Transformer on one or many devices."""

import dataclasses
import math

from ppvit_jax import models
from ppvit_jax.config import SHARDINGS
from ppvit_jax.errors import UserError
from ppvit_jax.models import ViTConfig
from ppvit_jax.models.attention import choose_attention, padded_tokens
from ppvit_jax.models.target import Target, default_target
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
      accumulated: sums of the gradients, if a batch is computed in several parts.
      optimizer: float32 optimizer state.
      working_copy: kernels in the compute dtype that exist at the peak, if they are rounded or gathered: about half of
        them, by the compiled programs.
      activations: values that exist between the forward and the backward pass; see `activation_bytes`.
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
      reduce_dtype: dtype in which devices add up their gradients of kernels: "float32" or "bfloat16".
      optimizer: a key of OPTIMIZER_COPIES.
      accumulation: number of parts of a batch that are computed one after another.

    Raises:
      UserError: the sharding is unknown, a number is below 1, or the batch size is not a multiple of devices times
        accumulation.
    """

    batch_size: int
    devices: int = 1
    sharding: str = "data_parallel"
    reduce_dtype: str = "float32"
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
    """Returns the cost of a training step on each device, for a model with this shape, compute dtype and target."""
    devices, accumulation = setup.devices, setup.accumulation
    images = setup.batch_size // (devices * accumulation)
    sharded = setup.sharding == "fully_sharded"
    kept = _FLOAT32 * kept_parameters(config, devices if sharded else 1)
    element, kernels = _ELEMENT_BYTES[config.dtype], _count(_kernels(config))
    return StepCost(
        parameters=kept,
        gradients=kept,
        # The loop of a TPU's program holds the old sum, the new one, and the gradients of a part.
        accumulated=kept * (3 if _target(config).platform == "tpu" else 1) if accumulation > 1 else 0,
        optimizer=kept * OPTIMIZER_COPIES[setup.optimizer],
        working_copy=element * kernels // 2 if (sharded and devices > 1) or element != _FLOAT32 else 0,
        activations=images * activation_bytes(config),
        attention_weights=images * attention_weight_bytes(config),
        sent=accumulation * sent_bytes(config, devices, setup.sharding, setup.reduce_dtype),
        flops=3 * forward_flops(config) * setup.batch_size // devices,
    )


def forward_flops(config: ViTConfig) -> int:
    """Returns the floating-point operations of the forward pass of one image.

    Counts matrix products only, 2 * m * n * k each: patch embedding, queries, keys and values, attention logits,
    attention values, projection, MLP, the layer before the head if there is one, and head. The gradients take twice as
    many, so a training step takes 3 * forward_flops * batch (Kaplan et al., arXiv 2001.08361, section 2.1).
    """
    hidden, patches = config.hidden_size, config.grid_size**2
    tokens = patches + config.layout.prefix_tokens
    block = tokens * (4 * hidden**2 + 2 * hidden * config.mlp_size) + 2 * tokens**2 * hidden
    width = config.representation_size or hidden
    representation = hidden * width if config.representation_size else 0
    embedding = patches * 3 * config.patch_size**2 * hidden
    return 2 * (embedding + config.layers * block + representation + width * config.num_classes)


_Shapes = dict[str, tuple[int, ...]]


def _shapes(config: ViTConfig) -> _Shapes:
    # The attention kernel changes no parameter, and this machine may lack the one that the config names.
    return models.parameter_shapes(dataclasses.replace(config, attention="xla"))


def _kernels(config: ViTConfig) -> _Shapes:
    return {name: shape for name, shape in _shapes(config).items() if name.endswith("kernel")}


def _count(shapes: _Shapes) -> int:
    return sum(map(math.prod, shapes.values()))


def parameter_count(config: ViTConfig) -> int:
    """Returns the number of parameters."""
    return _count(_shapes(config))


def kept_parameters(config: ViTConfig, devices: int) -> int:
    """Returns the number of parameters that each device keeps if every large tensor is split where it can be."""

    def kept(shape: tuple[int, ...]) -> int:
        return math.prod(shape) // (1 if split_axis(shape, devices) is None else devices)

    return sum(map(kept, _shapes(config).values()))


def _target(config: ViTConfig) -> Target:
    return config.target or default_target()


def _attention(config: ViTConfig) -> tuple[str, int]:
    """Returns the implementation of attention on the model's target, and its number of tokens."""
    head_size = config.hidden_size // config.heads
    implementation = choose_attention(config.attention, config.dtype, head_size, _target(config))
    return implementation, padded_tokens(config.grid_size**2 + config.layout.prefix_tokens, implementation)


def activation_bytes(config: ViTConfig) -> int:
    """Returns an estimate of the bytes of one image's values at the end of the forward pass, where memory has its peak.

    Compiled programs, without rematerialization, have about as much as these arrays in the compute dtype:
      In each block, 8 arrays [tokens, hidden]: the standardized inputs of attention and MLP; queries, keys and values;
      the output of attention; and two that differ by device. Then 2 arrays [tokens, MLP]: the input of the activation,
      and its output. Last, the attention weights; see `attention_weight_bytes`.
      Once, 8 arrays [tokens, hidden] and 1 array [tokens, MLP] for the gradients of a block, and the image in patches.
    Tokens are those with which attention computes; see `padded_tokens`.
    """
    element = _ELEMENT_BYTES[config.dtype]
    _, tokens = _attention(config)
    blocks = config.layers * (8 * config.hidden_size + 2 * config.mlp_size) + 8 * config.hidden_size + config.mlp_size
    image = config.grid_size**2 * 3 * config.patch_size**2
    return element * (image + tokens * blocks) + attention_weight_bytes(config)


def attention_weight_bytes(config: ViTConfig) -> int:
    """Returns an estimate of the bytes of one image's attention weights [heads, tokens, tokens] in all blocks.

    Counts the operand of the product with the values and, on a GPU, also the output of the softmax, which is at least
    float32. Attention "cudnn" recomputes the weights in the backward pass (FlashAttention, arXiv 2205.14135) and keeps
    none.
    """
    implementation, tokens = _attention(config)
    if implementation == "cudnn":
        return 0
    weight = _ELEMENT_BYTES[config.dtype]
    if _target(config).platform == "gpu":
        weight += max(weight, _FLOAT32)
    return config.layers * config.heads * tokens**2 * weight


def sent_bytes(config: ViTConfig, devices: int, sharding: str, reduce_dtype: str = "float32") -> int:
    """Returns the bytes that a device sends for each part of a batch, with collective operations in a ring.

    Gradients of kernels have the reduce dtype, those of other parameters float32, and gathered kernels the compute
    dtype:
      data parallel: all-reduces the gradients, 2 (n - 1) / n of their bytes (Patarasuk and Yuan, 2009).
      fully sharded: gathers the kernels for the forward and again for the backward pass, and reduce-scatters the
        gradients, (n - 1) / n each (ZeRO, arXiv 1910.02054, section 7.2). Gradients of tensors that are not divided
        are all-reduced.
    A CPU, which computes in nothing smaller, sends float32 only.
    """
    kernels, count = _kernels(config), _count(_shapes(config))
    gradient, element = _ELEMENT_BYTES[reduce_dtype], _ELEMENT_BYTES[config.dtype]
    if sharding == "data_parallel":
        values = 2 * (gradient * _count(kernels) + _FLOAT32 * (count - _count(kernels)))
    else:
        divided = {name: shape for name, shape in kernels.items() if split_axis(shape, devices) is not None}
        values = (gradient + 2 * element) * _count(divided)
        values += 2 * gradient * (_count(kernels) - _count(divided)) + 2 * _FLOAT32 * (count - _count(kernels))
    return values * (devices - 1) // devices
