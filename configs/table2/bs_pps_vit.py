"""Table II: block scrambling + pixel position shuffling with ViT-B/16.

Command:  python -m ppvit_jax.main --config=configs/table2/bs_pps_vit.py \\
              --workdir=runs/table2/bs_pps_vit
Table:    python -m ppvit_jax reproduce --table=2 --rows=bs_pps_vit --output=runs/table2
Expected: 96.64% in the paper, 84.42% on CIFAR-100.
          Not run by us to the end: it needs an accelerator; docs/tables has a scaled-down run.
Weights:  ViT-B_16.npz, pre-trained on ImageNet-21k (the README says where to get them).
Status:   a reconstruction of the encryption, whose description we know in part.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """The paper's protocol."""
    return protocols.vision_transformer("bs+pps", adapt=False)
