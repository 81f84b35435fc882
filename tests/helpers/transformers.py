"""Tiny transformers of every family, which together have every part that some family has."""

import dataclasses

from ppvit_jax import models
from ppvit_jax.models.dinov2 import DINOv2Config


def tiny_transformer(name: str, *, image_size: int = 0, hidden_size: int = 16, **options: str) -> models.ViTConfig:
    """Returns a narrow transformer with two layers and three classes.

    Args:
      name: a model's name; its size does not matter.
      image_size: side of an image in pixels; 0 for two patches.
      hidden_size: features of a token, a multiple of 8.
      **options: the model's options.
    """
    patch_size = int(name.partition("/")[2].partition("-")[0])
    config = models.parse_name(name, image_size=image_size or 2 * patch_size, num_classes=3, options=options)
    assert isinstance(config, models.ViTConfig)
    return dataclasses.replace(config, hidden_size=hidden_size, layers=2, heads=2, mlp_size=24)


def tiny_transformers(image_sizes: int = 2, hidden_size: int = 16) -> dict[str, models.ViTConfig]:
    """Returns tiny transformers of all families by a title; an image has `image_sizes` patches along each side."""
    names = (
        "ViT-B/8",
        "DeiT-S/8-distilled",
        "DeiT-S/8-III",
        "DINOv2-S/7",
        "DINOv2-B/7-registers",
        "DINOv3-S/8",
        "SigLIP-B/8",
        "CLIP-B/8",
    )
    sizes = {name: image_sizes * int(name.partition("/")[2][0]) for name in names}
    shapes = {name: tiny_transformer(name, image_size=size, hidden_size=hidden_size) for name, size in sizes.items()}
    shapes["SigLIP-B/8 mean"] = dataclasses.replace(shapes["SigLIP-B/8"], pool="norm_mean")
    shapes["DINOv2-S/7 token and mean"] = dataclasses.replace(shapes["DINOv2-S/7"], pool="token_mean")
    registers = shapes["DINOv2-B/7-registers"]
    assert isinstance(registers, DINOv2Config)
    shapes["DINOv2-g/7-registers as in timm"] = dataclasses.replace(registers, prefix_rows=0, gated=True)
    return shapes
