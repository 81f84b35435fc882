"""Table III: block scrambling + pixel shuffling, adapted (the paper's proposal), with ViT-B/16.

Command:  python -m ppvit_jax.main --config=configs/table3/proposed_vit.py --workdir=runs/table3/proposed_vit \\
              --config.data.dir=DIR
Table:    python -m ppvit_jax reproduce --table=3 --rows=proposed_vit --output=runs/table3
Expected: 99.2% in the paper. Not run by us to the end: it needs an accelerator.
Weights:  ViT-B_16.npz, pre-trained on ImageNet-21k (the README says where to get them).
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """The paper's protocol."""
    return protocols.imagenette(protocols.vision_transformer("bs+ps", adapt=True))
