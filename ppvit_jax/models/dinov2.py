"""DINOv2 (arXiv 2304.07193), with register tokens (arXiv 2309.16588) or without.

A ViT with LayerScale, and with SwiGLU in the giant model. Its patches have 14 pixels, and its published models have
positions for images of 518x518. Reference implementations: facebookresearch/dinov2, and timm's and Hugging Face's
models.
"""

import dataclasses
from typing import Any

from ppvit_jax.models.family import Stored
from ppvit_jax.models.layout import Layout
from ppvit_jax.models.vit_config import Size, ViTConfig
from ppvit_jax.models.vit_family import make_family

# Table 17 of arXiv 2304.07193. The first layer of SwiGLU is twice as wide as "g" has it here.
SIZES: dict[str, Size] = {
    "S": (384, 12, 6, 1536),
    "B": (768, 12, 12, 3072),
    "L": (1024, 24, 16, 4096),
    "g": (1536, 40, 24, 4096),
}
_SCALE = "lambda1"


@dataclasses.dataclass(frozen=True)
class DINOv2Config(ViTConfig):
    """Shape of a DINOv2.

    Attributes:
      registers: number of register tokens.
      prefix_rows: rows of the position embedding before the patches: 1 for the class token, or 0 in timm's models with
        registers, whose class token contains its position.
      gated: True for SwiGLU.
    """

    registers: int = 0
    prefix_rows: int = 1
    gated: bool = False

    @property
    def layout(self) -> Layout:
        """Parts of the model."""
        return Layout(
            registers=self.registers,
            prefix_rows=self.prefix_rows,
            layer_scale=_SCALE,
            gated=self.gated,
            pool=self.pool or "token",
        )


def _read_arrays(stored: Stored, fields: dict[str, Any]) -> dict[str, Any]:
    first = stored.shape("Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel", 2, FAMILY.title)
    return {
        "registers": stored.shape("registers", 3, FAMILY.title)[1] if "registers" in stored.arrays else 0,
        "prefix_rows": FAMILY.prefix_rows(stored.shape(FAMILY.positions, 3, FAMILY.title)[1]),
        "gated": first[1] == 2 * fields["mlp_size"],
    }


FAMILY = make_family(
    title="DINOv2",
    form="DINOv2-SIZE/PATCH",
    example="DINOv2-B/14 or DINOv2-B/14-registers",
    pattern=r"DINOv2-([A-Za-z]+)[/_](\d+)(-registers)?",
    config=DINOv2Config,
    sizes=SIZES,
    activation="gelu",
    epsilon=1e-6,
    landmarks=("cls", f"Transformer/encoderblock_0/LayerScale_0/{_SCALE}"),
    read_name=lambda match: {"registers": 4 if match[3] else 0, "gated": match[1] == "g"},
    read_arrays=_read_arrays,
    write_name=lambda config, size: f"DINOv2-{size}{'-registers' if config.registers else ''}",
    prefix_tokens=None,
    # As Hugging Face's code. The authors' code does so, too, but shifts the grid of models without registers a little.
    interpolation=lambda config: "cubic_antialias" if config.registers else "cubic",
)
