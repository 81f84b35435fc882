"""Table II: block scrambling + pixel shuffling, adapted (the paper's proposal), with ViT-B/16.

Command:  python -m ppvit_jax.main --config=configs/table2/proposed_vit.py \\
              --workdir=runs/table2/proposed_vit
Table:    python -m ppvit_jax reproduce --table=2 --rows=proposed_vit --output=runs/table2
Expected: 98.98% in the paper, 92.58% on CIFAR-100.
          Not run by us to the end: it needs an accelerator; docs/tables has a scaled-down run.
Weights:  ViT-B_16.npz, pre-trained on ImageNet-21k (the README says where to get them).
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """The paper's protocol."""
    return protocols.vision_transformer("bs+ps", adapt=True)
