"""Shape of a Vision Transformer, and the names of its published sizes."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from ppvit_jax.errors import UserError
from ppvit_jax.models.activations import ACTIVATIONS
from ppvit_jax.models.layout import POOLS, Layout
from ppvit_jax.models.target import Target

# Hidden size, layers, heads and MLP size.
Size = tuple[int, int, int, int]
# Table 1 of arXiv 2010.11929. Ti and S are those of arXiv 2106.10270; Micro is that of the small checkpoint in this
# package.
SIZES: dict[str, Size] = {
    "Micro": (128, 6, 4, 512),
    "Ti": (192, 12, 3, 768),
    "S": (384, 12, 6, 1536),
    "B": (768, 12, 12, 3072),
    "L": (1024, 24, 16, 4096),
    "H": (1280, 32, 16, 5120),
}

# Google's models have these.
ACTIVATION = "gelu_tanh"
EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """Shape of a Vision Transformer.

    Attributes:
      patch_size: side of a patch in pixels.
      hidden_size: features of a token.
      layers: number of encoder blocks.
      heads: attention heads of a block.
      mlp_size: hidden units of a block's MLP.
      image_size: side of an image in pixels.
      num_classes: outputs of the head.
      representation_size: width of the `pre_logits` layer (a dense layer and tanh between the class token and the
        head), or None for a model without this layer.
      dtype: compute dtype; the parameters keep theirs.
      attention: implementation of attention; see `ppvit_jax.models.attention.choose_attention`.
      activation: activation of the MLPs, one of ACTIVATIONS.
      epsilon: number that the layer normalizations add to the variance.
      pool: features that the head takes, one of `ppvit_jax.models.layout.POOLS`; "" for the family's usual ones.
      target: devices for which the functions are compiled; None for JAX's default devices.
      drop_path: share of images for which training leaves out a residual branch of the last block; see
        `ppvit_jax.models.drop_path`.
      remat: "none"; or "blocks", which keeps the inputs of the encoder blocks alone for the backward pass, and computes
        the rest again (arXiv 1604.06174).
    """

    patch_size: int
    hidden_size: int
    layers: int
    heads: int
    mlp_size: int
    image_size: int
    num_classes: int
    representation_size: int | None = None
    dtype: str = "float32"
    attention: str = "auto"
    activation: str = ACTIVATION
    epsilon: float = EPSILON
    pool: str = ""
    target: Target | None = None
    drop_path: float = 0.0
    remat: str = "none"

    @property
    def grid_size(self) -> int:
        """Number of patches along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def layout(self) -> Layout:
        """Parts of the model, which are the same for all models of a family but for options."""
        return Layout(pool=self.pool or "token")


def parse_name(
    name: str,
    *,
    image_size: int,
    num_classes: int,
    representation_size: int | None = None,
    dtype: str = "float32",
    attention: str = "auto",
    activation: str = ACTIVATION,
    epsilon: float = EPSILON,
    pool: str = "",
) -> ViTConfig:
    """Reads a model name such as `ViT-B/16` (or `ViT-B_16`, as the published files are named).

    Args:
      name: size and patch size of the model.
      image_size, num_classes, representation_size, dtype, attention, activation, epsilon, pool: see `ViTConfig`.

    Raises:
      UserError: the name or an option is unknown, or the image size is not a multiple of the patch size.
    """
    fields = parse_size(name, r"ViT-([A-Za-z]+)[/_](\d+)", SIZES, "ViT-SIZE/PATCH", "ViT-B/16", image_size)
    check_options(activation, epsilon, pool, "config.model_options has")
    return ViTConfig(
        **fields,
        num_classes=num_classes,
        representation_size=representation_size,
        dtype=dtype,
        attention=attention,
        activation=activation,
        epsilon=epsilon,
        pool=pool,
    )


def parse_size(
    name: str, pattern: str, sizes: Mapping[str, Size], form: str, example: str, image_size: int
) -> dict[str, Any]:
    """Reads size and patch size in a model's name.

    Args:
      name: the name.
      pattern: regular expression whose first two groups are size and patch size.
      sizes: the family's sizes.
      form, example: form of the names, and one of them, for the message.
      image_size: side of an image in pixels.

    Returns:
      The fields of `ViTConfig` that follow.

    Raises:
      UserError: the name is unknown, or the image size is not a multiple of the patch size.
    """
    match = re.fullmatch(pattern, name)
    if match is None or match[1] not in sizes or int(match[2]) == 0:
        raise UserError(
            f"unknown model {name!r}: use {form} with SIZE one of {', '.join(sizes)}, for example {example}"
        )
    patch_size = int(match[2])
    if image_size <= 0 or image_size % patch_size:
        below = max(image_size // patch_size, 1) * patch_size
        raise UserError(
            f"image size {image_size} is not a multiple of the patch size {patch_size} of {name}: "
            f"use, for example, {below} or {below + patch_size}"
        )
    shape = dict(zip(("hidden_size", "layers", "heads", "mlp_size"), sizes[match[1]], strict=True))
    return {"patch_size": patch_size, "image_size": image_size, **shape}


def check_options(activation: object, epsilon: object, pool: object, source: str) -> None:
    """Checks the options that a checkpoint's arrays do not show.

    Args:
      activation: the name of the activation.
      epsilon: the number that the layer normalizations add to the variance.
      pool: the features that the head takes.
      source: start of the message, such as "model.npz records".

    Raises:
      UserError: the activation or the pooling is unknown, or epsilon is no positive number below 1.
    """
    if activation not in ACTIVATIONS:
        raise UserError(f"{source} the activation {activation!r}: use one of {', '.join(ACTIVATIONS)}")
    if not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
        raise UserError(f"{source} the epsilon {epsilon!r}: use a number above 0 and below 1, such as {EPSILON}")
    if pool and pool not in POOLS:
        raise UserError(f"{source} the pooling {pool!r}: use one of {', '.join(POOLS)}")
