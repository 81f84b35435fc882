"""Table II: Color-NeuraCrypt with ViT-B/16.

Command:  python -m ppvit_jax.main --config=configs/table2/color_neuracrypt_vit.py \\
              --workdir=runs/table2/color_neuracrypt_vit
Table:    python -m ppvit_jax reproduce --table=2 --rows=color_neuracrypt_vit --output=runs/table2
Expected: 96.20% in the paper.
          Not run by us to the end: it needs an accelerator; docs/tables has a scaled-down run.
Weights:  ViT-B_16.npz, pre-trained on ImageNet-21k (the README says where to get them).
Status:   a reconstruction from the method's abstract.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """The paper's protocol, on encodings."""
    return protocols.vision_transformer("color-neuracrypt", adapt=False)
