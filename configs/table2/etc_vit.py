"""Table II: encryption-then-compression (EtC) with ViT-B/16.

Command:  python -m ppvit_jax.main --config=configs/table2/etc_vit.py \\
              --workdir=runs/table2/etc_vit
Table:    python -m ppvit_jax reproduce --table=2 --rows=etc_vit --output=runs/table2
Expected: 87.89% in the paper.
          Not run by us to the end: it needs an accelerator; docs/tables has a scaled-down run.
Weights:  ViT-B_16.npz, pre-trained on ImageNet-21k (the README says where to get them).
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """The paper's protocol."""
    return protocols.vision_transformer("etc", adapt=False)
