"""DeiT with a distillation token (arXiv 2012.12877), and DeiT III (arXiv 2204.07118).

A DeiT without distillation is a ViT (`ppvit_jax.models.vit`) with the exact GELU. DeiT III has LayerScale, and a class
token without a position. Reference implementations: facebookresearch/deit, and timm's and Hugging Face's models.
"""

import dataclasses

from ppvit_jax.models.layout import Layout
from ppvit_jax.models.vit_config import Size, ViTConfig
from ppvit_jax.models.vit_family import make_family

# Table 1 of arXiv 2012.12877; M, L and H are those of DeiT III.
SIZES: dict[str, Size] = {
    "Ti": (192, 12, 3, 768),
    "S": (384, 12, 6, 1536),
    "M": (512, 12, 8, 2048),
    "B": (768, 12, 12, 3072),
    "L": (1024, 24, 16, 4096),
    "H": (1280, 32, 16, 5120),
}
_SCALE = "gamma"


@dataclasses.dataclass(frozen=True)
class DeiTConfig(ViTConfig):
    """Shape of a DeiT.

    Attributes:
      is_third: True for DeiT III, False for a DeiT with a distillation token.
    """

    is_third: bool = False

    @property
    def layout(self) -> Layout:
        """Parts of the model."""
        if self.is_third:
            return Layout(prefix_rows=0, layer_scale=_SCALE, pool=self.pool or "token")
        return Layout(distillation_token=True, prefix_rows=2, pool=self.pool or "distilled")


FAMILY = make_family(
    title="DeiT",
    form="DeiT-SIZE/PATCH-distilled, DeiT-SIZE/PATCH-III",
    example="DeiT-S/16-distilled",
    pattern=r"DeiT-([A-Za-z]+)[/_](\d+)-(distilled|III)",
    config=DeiTConfig,
    sizes=SIZES,
    activation="gelu",
    epsilon=1e-6,
    # The factors of DeiT III, or the distillation token and its head.
    landmarks=("cls", f"Transformer/encoderblock_0/LayerScale_0/{_SCALE}", "dist", "head_dist/kernel"),
    read_name=lambda match: {"is_third": match[3] == "III"},
    read_arrays=lambda stored, fields: {"is_third": "dist" not in stored.arrays},
    write_name=lambda config, size: f"DeiT-{size}-{'III' if config.is_third else 'distilled'}",
    prefix_tokens=None,
    other_heads=("head_dist",),
    # As Hugging Face's code; timm interpolates with antialiasing.
    interpolation=lambda config: "cubic",
)
