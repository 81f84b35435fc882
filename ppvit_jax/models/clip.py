"""CLIP (arXiv 2103.00020) and OpenCLIP (arXiv 2212.07143): the image encoders.

A ViT with a normalization before the first block, and without a bias in the patch embedding. OpenAI's models have the
quick GELU, OpenCLIP's most often the GELU. Reference implementations: openai/CLIP, mlfoundations/open_clip, and timm's
and Hugging Face's models.
"""

import dataclasses

from ppvit_jax.models.layout import Layout
from ppvit_jax.models.vit_config import Size, ViTConfig
from ppvit_jax.models.vit_family import make_family

# Table 19 of arXiv 2103.00020; H, g and bigG are OpenCLIP's.
SIZES: dict[str, Size] = {
    "B": (768, 12, 12, 3072),
    "L": (1024, 24, 16, 4096),
    "H": (1280, 32, 16, 5120),
    "g": (1408, 40, 16, 6144),
    "bigG": (1664, 48, 16, 8192),
}


@dataclasses.dataclass(frozen=True)
class CLIPConfig(ViTConfig):
    """Shape of the image encoder of a CLIP."""

    @property
    def layout(self) -> Layout:
        """Parts of the model."""
        return Layout(patch_bias=False, pre_norm=True, pool=self.pool or "token")


FAMILY = make_family(
    title="CLIP",
    form="CLIP-SIZE/PATCH",
    example="CLIP-B/16",
    pattern=r"CLIP-([A-Za-z]+)[/_](\d+)",
    config=CLIPConfig,
    sizes=SIZES,
    activation="quick_gelu",
    epsilon=1e-5,
    landmarks=("cls", "Transformer/pre_norm/scale"),
    write_name=lambda config, size: f"CLIP-{size}",
    patch_bias="",
    # As Hugging Face's code; timm interpolates with antialiasing.
    interpolation=lambda config: "cubic",
)
