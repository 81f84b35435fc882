"""Matrix products of a training step, and their floating-point operations."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from ppvit_jax.models import ViTConfig
from ppvit_jax.models.attention import choose_attention, padded_tokens
from ppvit_jax.models.target import Target, default_target
from ppvit_jax.training.scaling.setup import Setup
from ppvit_jax.training.scaling.tensors import (
    Place,
    find_tensors,
    is_kernel,
    own_name,
    parameter_shapes,
    place,
)

# Place of the last layer in a block. Nothing needs its output in the backward pass.
_LAST = 3


class Product(NamedTuple):
    """Product of an image's tokens with a kernel, or one of attention's two products in a block.

    Attributes:
      kernel: the name of the kernel; "" for attention.
      place: its place in the model; that of queries, keys and values for attention.
      flops: floating-point operations for one image in the forward pass, 2 m n k.
    """

    kernel: str
    place: Place
    flops: int


def target_of(config: ViTConfig) -> Target:
    """Returns the devices for which a model's functions are compiled."""
    return config.target or default_target()


def attention_of(config: ViTConfig) -> tuple[str, int]:
    """Returns the implementation of attention on the model's target, and the number of tokens in the blocks there."""
    head_size = config.hidden_size // config.heads
    implementation = choose_attention(config.attention, config.dtype, head_size, target_of(config))
    return implementation, padded_tokens(token_count(config), implementation)


def token_count(config: ViTConfig) -> int:
    """Returns the number of tokens of an image."""
    return config.grid_size**2 + config.layout.prefix_tokens


def products(config: ViTConfig, tokens: int) -> Iterator[Product]:
    """Yields the products of the forward pass of one image.

    The query of attention pooling is left out: it is one row for a whole batch.

    Args:
      config: the model's shape.
      tokens: number of tokens in the blocks.
    """
    patches, hidden = config.grid_size**2, config.hidden_size
    for name, shape in parameter_shapes(config).items():
        where = place(config, name)
        if not is_kernel(name):
            continue
        if where[0] <= config.layers:
            rows = tokens if where[0] else patches
        else:
            # Pooling attends to the patches; other layers after the blocks have one row for each image.
            rows = {"query": 0, "key": patches, "value": patches}.get(own_name(name), 1)
        yield Product(name, where, 2 * rows * math.prod(shape))
    for depth in range(1, config.layers + 1):
        yield from [Product("", (depth, 0), 2 * tokens**2 * hidden)] * 2
    if config.layout.pool == "map":
        yield from [Product("", (config.layers + 1, 0), 2 * patches * hidden)] * 2


def forward_flops(config: ViTConfig) -> int:
    """Returns the floating-point operations of the forward pass of one image.

    Counts matrix products only, 2 * m * n * k each: patch embedding, queries, keys and values, attention logits,
    attention values, projection, MLP, attention pooling and the layer before the head if there are any, and head. The
    gradients of all of them take twice as many (Kaplan et al., arXiv 2001.08361, section 2.1).
    """
    return sum(product.flops for product in products(config, token_count(config)))


def is_recomputed(config: ViTConfig, setup: Setup, where: Place) -> bool:
    """Returns True for the place of a layer whose output the backward pass computes again."""
    depth, order = where
    in_block = 1 <= depth <= config.layers and order < _LAST
    return setup.remat == "blocks" and in_block and find_tensors(config, setup).first <= (depth, _LAST)


def step_flops(config: ViTConfig, setup: Setup) -> int:
    """Returns the floating-point operations of the products of a training step on one device.

    Each product with a kernel is computed up to three times: in the forward pass, for the gradient of the kernel if the
    kernel has one, and for the gradient of its input if something before it has one. Attention computes twice as many
    products in the backward pass, and one more where it keeps no attention weights (arXiv 2205.14135). "blocks" as
    `setup.remat` computes the blocks of the backward pass again, but for the last product of each. Padding counts as
    tokens. Low-rank factors are multiplied once in each part of a batch, with two products for their gradients.
    """
    implementation, tokens = attention_of(config)
    tensors = find_tensors(config, setup)
    image = 0
    for kernel, where, flops in products(config, tokens):
        is_reached, in_block = tensors.first <= where, 1 <= where[0] <= config.layers
        image += flops
        if kernel:
            image += flops * ((kernel in tensors.differentiated) + (tensors.first < where))
        elif is_reached:
            image += 2 * flops
            # The fifth of cuDNN's products in the backward pass, half of it for each of the two.
            image += flops // 2 if implementation == "cudnn" and in_block else 0
        image += flops * is_recomputed(config, setup, where)
    # A B, and the two gradients. Devices that share the factors share these products.
    factors = 3 * sum(2 * math.prod(tensors.model[name]) * setup.rank for name in tensors.adapted)
    factors //= setup.devices if setup.is_divided else 1
    return setup.accumulation * (setup.images * image + factors)
