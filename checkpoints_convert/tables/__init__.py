"""Names of the tensors of every family in the files of timm and Hugging Face."""

from collections.abc import Mapping

from checkpoints_convert.names import Names
from checkpoints_convert.tables import clip, deit, dinov2, dinov3, siglip, vit
from ppvit_jax import models

# By the title of the model family.
NAMES: Mapping[str, Names] = {
    "Vision Transformer": vit.NAMES,
    "DeiT": deit.NAMES,
    "DINOv2": dinov2.NAMES,
    "DINOv3": dinov3.NAMES,
    "SigLIP": siglip.NAMES,
    "CLIP": clip.NAMES,
}


def names_of(config: models.ModelConfig) -> Names:
    """Returns the names of a model's family."""
    return NAMES[models.family_of(config).title]
