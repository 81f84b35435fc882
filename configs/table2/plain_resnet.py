"""Table II: plain images with ResNet-18.

Command:  python -m ppvit_jax.main --config=configs/table2/plain_resnet.py \\
              --workdir=runs/table2/plain_resnet
Table:    python -m ppvit_jax reproduce --table=2 --rows=plain_resnet --output=runs/table2
Expected: 95.53% in the paper.
          Not run by us to the end: it needs an accelerator; docs/tables has a scaled-down run.
Status:   a reconstruction of the training, whose numbers the source's text did not give us.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """An inferred protocol."""
    return protocols.resnet("none")
