"""SigLIP (arXiv 2303.15343) and SigLIP 2 (arXiv 2502.14786): the image encoders.

A ViT without a class token, whose features are pooled by attention or by their mean. Parameters have the names of this
package's encoder, and `pos_embedding` and `MAPHead_0` those of big_vision. Reference implementations:
google-research/big_vision, and timm's and Hugging Face's models.
"""

import dataclasses
from typing import Any

from ppvit_jax.models.family import Stored
from ppvit_jax.models.layout import Layout
from ppvit_jax.models.vit_config import Size, ViTConfig
from ppvit_jax.models.vit_family import make_family

# So400m is that of arXiv 2305.13035, and g that of SigLIP 2.
SIZES: dict[str, Size] = {
    "B": (768, 12, 12, 3072),
    "L": (1024, 24, 16, 4096),
    "So400m": (1152, 27, 16, 4304),
    "g": (1536, 40, 16, 6144),
}


@dataclasses.dataclass(frozen=True)
class SigLIPConfig(ViTConfig):
    """Shape of the image encoder of a SigLIP."""

    @property
    def layout(self) -> Layout:
        """Parts of the model."""
        return Layout(class_token=False, prefix_rows=0, top_positions=True, pool=self.pool or "map")


def _read_arrays(stored: Stored, fields: dict[str, Any]) -> dict[str, Any]:
    # Pooling by the mean has no parameters.
    if not fields["pool"] and "MAPHead_0/probe" not in stored.arrays:
        fields["pool"] = "norm_mean"
    return {}


FAMILY = make_family(
    title="SigLIP",
    form="SigLIP-SIZE/PATCH",
    example="SigLIP-B/16",
    pattern=r"SigLIP-([A-Za-z0-9]+)[/_](\d+)",
    config=SigLIPConfig,
    sizes=SIZES,
    activation="gelu_tanh",
    epsilon=1e-6,
    landmarks=("pos_embedding",),
    read_arrays=_read_arrays,
    write_name=lambda config, size: f"SigLIP-{size}",
    positions="pos_embedding",
    prefix_tokens=0,
    optional=("pre_logits", "MAPHead_0"),
    # As Hugging Face's code; timm interpolates with antialiasing.
    interpolation=lambda config: "cubic",
)
