"""DINOv3 (arXiv 2508.10104).

A ViT with LayerScale, register tokens and rotary positions instead of a position embedding. The angles depend on the
positions alone, and are public: a permuted table of them shows the permutation of blocks. Reference implementations:
facebookresearch/dinov3, and Hugging Face's model. It scales positions at random in pre-training; this package does not.
"""

import dataclasses
from typing import Any

import numpy as np

from ppvit_jax.errors import UserError
from ppvit_jax.models.encoder import ROTARY_BASE
from ppvit_jax.models.family import Stored
from ppvit_jax.models.layout import Layout
from ppvit_jax.models.rotary import grid_angles
from ppvit_jax.models.vit_config import Size, ViTConfig
from ppvit_jax.models.vit_family import make_family

# Table 2 of arXiv 2508.10104. The first layer of SwiGLU is twice as wide as "S+" and "H+" have it here.
SIZES: dict[str, Size] = {
    "S": (384, 12, 6, 1536),
    "S+": (384, 12, 6, 1536),
    "B": (768, 12, 12, 3072),
    "L": (1024, 24, 16, 4096),
    "H+": (1280, 32, 20, 5120),
}


@dataclasses.dataclass(frozen=True)
class DINOv3Config(ViTConfig):
    """Shape of a DINOv3.

    Attributes:
      gated: True for SwiGLU.
    """

    gated: bool = False

    @property
    def layout(self) -> Layout:
        """Parts of the model."""
        return Layout(
            registers=4,
            prefix_rows=0,
            layer_scale="lambda1",
            gated=self.gated,
            rotary=True,
            pool=self.pool or "token",
        )


def _read_arrays(stored: Stored, fields: dict[str, Any]) -> dict[str, Any]:
    first = stored.shape("Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel", 2, FAMILY.title)
    return {"gated": first[1] == 2 * fields["mlp_size"]}


def _resize(angles: np.ndarray, grid_size: int) -> np.ndarray:
    """Returns the angles of another grid; see `Family.resize`."""
    old, head_size = round(angles.shape[1] ** 0.5), 2 * angles.shape[2]
    if not np.allclose(angles[0], grid_angles(old, head_size, ROTARY_BASE), atol=1e-4):
        raise UserError("the model's rotary positions are permuted, and cannot be resized: restore the model first")
    return grid_angles(grid_size, head_size, ROTARY_BASE)[None].astype(angles.dtype)


FAMILY = make_family(
    title="DINOv3",
    form="DINOv3-SIZE/PATCH",
    example="DINOv3-B/16",
    pattern=r"DINOv3-([A-Za-z]+\+?)[/_](\d+)",
    config=DINOv3Config,
    sizes=SIZES,
    activation="gelu",
    epsilon=1e-5,
    landmarks=("cls", "registers", "Transformer/rotary/angles"),
    read_name=lambda match: {"gated": match[1].endswith("+")},
    read_arrays=_read_arrays,
    write_name=lambda config, size: f"DINOv3-{size.replace('S/', 'S+/') if config.gated else size}",
    positions="Transformer/rotary/angles",
    prefix_tokens=0,
    resize=_resize,
    in_the_clear="the permutation of blocks, because the plain table of rotary angles is public",
    fixed=("Transformer/rotary/angles",),
)
