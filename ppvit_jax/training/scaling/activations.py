"""Values of a training step that exist beside its state where memory has its peak."""

import math

from ppvit_jax.models import ViTConfig
from ppvit_jax.models.low_rank import LAYERS
from ppvit_jax.training.scaling.products import attention_of, target_of
from ppvit_jax.training.scaling.setup import ELEMENT_BYTES, FLOAT32_BYTES, Setup
from ppvit_jax.training.scaling.tensors import find_tensors, is_in_block, is_kernel, is_scaled, own_name, place

*_TO_HEADS, _, _FIRST, _LAST = LAYERS
# The activation that cuBLAS computes within a product.
_MERGED_ACTIVATION = "gelu_tanh"
# Columns of a TPU's tiles.
_TILE = 128


def activation_bytes(config: ViTConfig, setup: Setup) -> int:
    """Returns an estimate of the bytes of one image's values at the start of the backward pass.

    Compiled programs have about these arrays in the compute dtype, beside the image of 1 byte a value. A hidden array
    is [tokens, hidden], and an MLP array is [tokens, MLP]. Tokens are those with which attention computes; see
    `padded_tokens`.
      In each block that the backward pass reaches:
        3 hidden arrays: queries, keys and values.
        1 hidden array: the output of attention.
        2 hidden arrays: the outputs of attention's projection and of the MLP, from which XLA computes the residual
          stream again.
        2 hidden arrays: the standardized inputs of attention and MLP, each if a kernel after it has a gradient.
        1 MLP array: the input of the activation. SwiGLU has 3: its input is twice as wide, and the gate's output.
        1 MLP array: the input of the MLP's last kernel, if this has a gradient.
        The attention weights; see `attention_weight_bytes`.
      With `setup.remat`, 1 hidden array instead, and all of these in one block at a time.
      Once:
        The image in patches and the residual stream, if the patch embedding has a gradient. 1 hidden array more, if a
          normalization comes before the blocks.
        2 MLP arrays: the gradients of the activation's input and output in the last block. SwiGLU has 3. The input of
          the MLP's last kernel is free by then on one device. Several devices postpone the kernel's gradient, and keep
          2 hidden arrays more for it.
        Or 8 hidden arrays of attention pooling, if they are more: its input before and after the normalization, keys,
          values and their gradients.
        A CPU's programs have 8 hidden arrays and 1 MLP array instead of these, and a TPU's have 1 MLP array.
    A TPU computes the tanh form of the GELU again, so that a block keeps 1 MLP array less. It stores arrays in tiles of
    8 x 128 values. Tokens are the last axis of its queries, keys and values, which are padded to a multiple of 128.
    A linear probe has no backward pass: it needs either the arrays of one attention or those of one MLP.
    """
    _, tokens = attention_of(config)
    element, weights = ELEMENT_BYTES[config.dtype], attention_weight_bytes(config, setup)
    if reached_blocks(config, setup):
        values = element * _kept_values(config, setup, tokens) + weights
    else:
        attention = 5 * tokens * config.hidden_size
        values = max(element * _values_of_forward_mlp(config, tokens), element * attention + weights)
    return 3 * config.image_size**2 + values


def attention_weight_bytes(config: ViTConfig, setup: Setup) -> int:
    """Returns an estimate of the bytes of one image's attention weights [heads, tokens, tokens].

    Counts the operand of the product with the values and, on a GPU, also the output of the softmax, which is at least
    float32. A TPU keeps the latter alone, in tiles of 8 x 128 values. Attention "cudnn" recomputes the weights in the
    backward pass (FlashAttention, arXiv 2205.14135) and keeps none.

    All blocks keep their weights for the backward pass. "blocks" as `setup.remat`, or a linear probe, needs those of
    one block at a time. A TPU computes those of a linear probe within other operations, and keeps none.
    """
    implementation, tokens = attention_of(config)
    reached, platform = reached_blocks(config, setup), target_of(config).platform
    if implementation == "cudnn" or (platform == "tpu" and not reached):
        return 0
    element, elements = ELEMENT_BYTES[config.dtype], tokens**2
    if platform == "gpu":
        element += max(element, FLOAT32_BYTES)
    elif platform == "tpu":
        element, elements = max(element, FLOAT32_BYTES), _round_up(tokens, 8) * _round_up(tokens, _TILE)
    blocks = 1 if setup.remat == "blocks" else max(reached, 1)
    return blocks * config.heads * elements * element


def reached_blocks(config: ViTConfig, setup: Setup) -> int:
    """Returns the number of blocks that the backward pass reaches: the last ones, or 0 for a linear probe."""
    first, _ = find_tensors(config, setup).first
    return max(config.layers + 1 - max(first, 1), 0)


def _kept_values(config: ViTConfig, setup: Setup, tokens: int) -> int:
    """Returns the number of values of `activation_bytes` but for attention weights, with a backward pass."""
    layout, hidden, mlp = config.layout, tokens * config.hidden_size, tokens * config.mlp_size
    tensors, reached, target = find_tensors(config, setup), reached_blocks(config, setup), target_of(config)
    layers = {own_name(name) for name in tensors.differentiated if is_kernel(name) and is_in_block(config, name)}
    inputs, has_last, is_tpu = bool(layers & set(_TO_HEADS)) + (_FIRST in layers), _LAST in layers, _is_tpu(config)
    to_heads = _round_up(tokens, _TILE) * config.hidden_size if is_tpu else hidden
    keeps_input = has_last and not (is_tpu and config.activation == _MERGED_ACTIVATION and not layout.gated)
    block = 3 * to_heads + (3 + inputs) * hidden + ((3 if layout.gated else 1) + keeps_input) * mlp
    blocks = reached * hidden + block + hidden if setup.remat == "blocks" else reached * block

    last = (3 if layout.gated else 2) * mlp
    if has_last:
        last += 2 * hidden if setup.devices > 1 and setup.remat == "none" else -mlp
    if layout.pool == "map":
        last = max(last, 8 * config.grid_size**2 * config.hidden_size)
    if target.is_cpu:
        last = 8 * hidden + mlp
    elif is_tpu:
        last = mlp
    image = config.grid_size**2 * 3 * config.patch_size**2
    stem = image + (1 + layout.pre_norm) * hidden if tensors.first[0] == 0 else 0
    return stem + blocks + last


def _values_of_forward_mlp(config: ViTConfig, tokens: int) -> int:
    """Returns the number of values that an MLP needs in the forward pass, with the residual stream."""
    hidden, mlp = tokens * config.hidden_size, tokens * config.mlp_size
    if config.layout.gated:
        return hidden + 3 * mlp
    # Where the activation is computed within the product before it, its input is not kept.
    if _is_tpu(config):
        return hidden + mlp
    return 2 * hidden + mlp if _is_merged(config) else hidden + 2 * mlp


def _is_merged(config: ViTConfig) -> bool:
    """Returns True if cuBLAS computes the activation of an MLP within the product before it."""
    is_on_gpu = target_of(config).platform == "gpu"
    return is_on_gpu and config.activation == _MERGED_ACTIVATION and not config.layout.gated


def _is_tpu(config: ViTConfig) -> bool:
    return target_of(config).platform == "tpu"


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def working_copy_bytes(config: ViTConfig, setup: Setup) -> int:
    """Returns an estimate of the bytes of kernels that are rounded, gathered, or multiplied by factors.

    A block multiplies its kernels after a normalization by the normalization's scale, and those before a residual
    branch by LayerScale, so that these have a copy in float32, too. One GPU keeps all copies from the forward to the
    backward pass. By the compiled programs, each of several GPUs has about half of them at a time, and about three
    quarters if they are gathered. A TPU keeps none but gathered ones.

    "blocks" as `setup.remat` keeps those of one block, beside the kernels to which low-rank factors have been added. A
    linear probe keeps one kernel. On one GPU, XLA multiplies SGD's momentum of the other kernels by its decay before
    the backward pass, and keeps the product in float32.
    """
    if _is_tpu(config) and not setup.is_divided:
        return 0
    tensors = find_tensors(config, setup)
    kernels = {name: math.prod(shape) for name, shape in tensors.model.items() if is_kernel(name)}
    scaled = {name for name in kernels if is_scaled(config, name)}
    is_rounded = config.dtype != "float32" or setup.is_divided
    element = ELEMENT_BYTES[config.dtype]
    copies = {name: element * size for name, size in kernels.items() if is_rounded or name in scaled}
    total = sum(copies.values())
    if setup.devices > 1:
        total = total * 3 // 4 if setup.is_divided else total // 2
    if not reached_blocks(config, setup) and not setup.is_divided:
        total = max(copies.values(), default=0)
    elif setup.remat == "blocks" and not setup.is_divided:
        total = sum(size for name, size in copies.items() if place(config, name)[0] == 1)
        total += FLOAT32_BYTES * sum(kernels[name] for name in tensors.adapted)
    is_alone = setup.devices == setup.accumulation == 1
    if is_alone and setup.optimizer == "sgd" and target_of(config).platform == "gpu":
        early = [name for name in tensors.trained if name in kernels and place(config, name)[0] <= config.layers]
        total += FLOAT32_BYTES * sum(kernels[name] for name in early if name not in scaled)
    return total


def workspace_bytes(config: ViTConfig, setup: Setup) -> int:
    """Returns the bytes that products need beside their operands and results: cuBLAS's workspace on a Hopper GPU.

    A linear probe has its peak while it computes the activation of an MLP, unless cuBLAS does so.
    """
    is_needed = target_of(config).platform == "gpu" and (reached_blocks(config, setup) or _is_merged(config))
    return 2**25 if is_needed else 0
