"""Families of Vision Transformers as timm and Hugging Face publish them: tables of names, and usual values."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from checkpoints_convert.names import Names
from checkpoints_convert.tables import NAMES
from ppvit_jax.models import Family
from ppvit_jax.models.clip import FAMILY as CLIP
from ppvit_jax.models.clip import SIZES as CLIP_SIZES
from ppvit_jax.models.deit import FAMILY as DEIT
from ppvit_jax.models.deit import SIZES as DEIT_SIZES
from ppvit_jax.models.dinov2 import FAMILY as DINOV2
from ppvit_jax.models.dinov2 import SIZES as DINOV2_SIZES
from ppvit_jax.models.dinov3 import FAMILY as DINOV3
from ppvit_jax.models.dinov3 import SIZES as DINOV3_SIZES
from ppvit_jax.models.siglip import FAMILY as SIGLIP
from ppvit_jax.models.siglip import SIZES as SIGLIP_SIZES
from ppvit_jax.models.vit import FAMILY as VIT
from ppvit_jax.models.vit_config import SIZES as VIT_SIZES
from ppvit_jax.models.vit_config import Size

Normalization = tuple[tuple[float, ...], tuple[float, ...]]

# Mean and standard deviation of ImageNet, and those that OpenAI's CLIP takes.
IMAGENET: Normalization = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI: Normalization = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF: Normalization = ((0.5,) * 3, (0.5,) * 3)


@dataclasses.dataclass(frozen=True)
class Foreign:
    """Family of models in the files of other programs.

    Attributes:
      family: our description of the family.
      names: the tensors' names.
      sizes: the family's sizes, whose numbers of attention heads are the usual ones.
      normalization: mean and standard deviation of the published models; None if they differ.
    """

    family: Family[Any]
    names: Names
    sizes: Mapping[str, Size]
    normalization: Normalization | None

    @property
    def title(self) -> str:
        """The family's name, for messages."""
        return self.family.title

    def is_unused(self, name: str) -> bool:
        """Returns True for the name of a tensor that has no part in the features of an image."""
        return any(re.fullmatch(pattern, name) for pattern in self.names.unused)


def _describe(family: Family[Any], sizes: Mapping[str, Size], usual: Normalization | None) -> Foreign:
    return Foreign(family, NAMES[family.title], sizes, usual)


# A plain DeiT, DINO or MAE is a ViT with ImageNet's normalization, and Google's ViT has another.
FOREIGN = {
    "vit": _describe(VIT, VIT_SIZES, None),
    "deit": _describe(DEIT, DEIT_SIZES, IMAGENET),
    "dinov2": _describe(DINOV2, DINOV2_SIZES, IMAGENET),
    "dinov3": _describe(DINOV3, DINOV3_SIZES, IMAGENET),
    "siglip": _describe(SIGLIP, SIGLIP_SIZES, HALF),
    "clip": _describe(CLIP, CLIP_SIZES, OPENAI),
}


def of_timm(state: Mapping[str, np.ndarray]) -> Foreign:
    """Returns the family of a model of timm, by its tensors; the ViT's if they are those of no other family."""
    positions = state.get("pos_embed")
    rows = positions.shape[1] if positions is not None and positions.ndim == 3 else 0
    layers, scales = (
        {match[1] for match in map(re.compile(pattern).match, state) if match}
        for pattern in (r"blocks\.(\d+)\.norm1\.", r"blocks\.(\d+)\.ls[12]\.gamma")
    )
    if "cls_token" not in state:
        return FOREIGN["siglip" if _is_square(rows) else "vit"]
    if "dist_token" in state and _is_square(rows - 2):
        return FOREIGN["deit"]
    if "norm_pre.weight" in state and "patch_embed.proj.bias" not in state:
        return FOREIGN["clip"]
    if layers and layers == scales:
        # DeiT III has no registers, and no position of its class token.
        return FOREIGN["deit" if _is_square(rows) and "reg_token" not in state else "dinov2"]
    return FOREIGN["vit"]


def _is_square(rows: int) -> bool:
    return rows > 0 and math.isqrt(rows) ** 2 == rows


def of_config(config: object) -> Foreign:
    """Returns the family of one of our shapes."""
    return next(foreign for foreign in FOREIGN.values() if foreign.family.config is type(config))
