"""Tiny models of every family of Vision Transformers, in the forms in which their programs differ."""

import dataclasses
from typing import Any

from ppvit_jax import models

HALF = ((0.5,) * 3, (0.5,) * 3)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Name, options, and other fields of the shape.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ViT": ("ViT-B/4", {}, {}),
    "ViT with pre_logits": ("ViT-B/4", {}, {"representation_size": 8}),
    "MAE": ("ViT-B/4", {"activation": "gelu", "pool": "mean"}, {}),
    "DeiT": ("ViT-S/4", {"activation": "gelu"}, {}),
    "DeiT distilled": ("DeiT-S/4-distilled", {}, {}),
    "DeiT distilled with one head": ("DeiT-S/4-distilled", {"pool": "token"}, {}),
    "DeiT III": ("DeiT-S/4-III", {}, {}),
    "DINOv2": ("DINOv2-S/4", {}, {}),
    "DINOv2 with the mean": ("DINOv2-S/4", {"pool": "token_mean"}, {}),
    "DINOv2 giant with registers": ("DINOv2-g/4-registers", {}, {}),
    "DINOv2 with registers of timm": ("DINOv2-S/4-registers", {}, {"prefix_rows": 0}),
    "DINOv3": ("DINOv3-S/4", {}, {}),
    "DINOv3 with SwiGLU": ("DINOv3-S+/4", {}, {}),
    "SigLIP": ("SigLIP-B/4", {}, {}),
    "SigLIP with the mean": ("SigLIP-B/4", {"pool": "norm_mean"}, {}),
    "CLIP": ("CLIP-B/4", {}, {}),
    "CLIP with the mean": ("CLIP-B/4", {"pool": "raw_mean"}, {}),
}


def tiny_family(case: str, dtype: str = "float32") -> models.ViTConfig:
    """Returns the shape of a model of one of CASES, with two layers of width 16 and images of 16x16 pixels."""
    name, options, fields = CASES[case]
    config: Any = models.parse_name(name, image_size=16, num_classes=5, dtype=dtype, options=options)
    return dataclasses.replace(config, hidden_size=16, layers=2, heads=2, mlp_size=24, **fields)
