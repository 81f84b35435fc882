"""Table II: plain images with ShakeDrop.

Command:  python -m ppvit_jax.main --config=configs/table2/plain_shakedrop.py \\
              --workdir=runs/table2/plain_shakedrop
Table:    python -m ppvit_jax reproduce --table=2 --rows=plain_shakedrop --output=runs/table2
Expected: 96.70% in the paper, 83.59% on CIFAR-100, the best test epoch.
          Not run by us to the end: it needs an accelerator; docs/tables has a scaled-down run.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """Madono's protocol, without an adaptation network."""
    return protocols.shake_drop("none", "none")
