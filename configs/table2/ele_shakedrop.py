"""Table II: extended learnable encryption (ELE) with ELE-AdaptNet and ShakeDrop.

Command:  python -m ppvit_jax.main --config=configs/table2/ele_shakedrop.py \\
              --workdir=runs/table2/ele_shakedrop
Table:    python -m ppvit_jax reproduce --table=2 --rows=ele_shakedrop --output=runs/table2
Expected: 83.06% in the paper, 62.97% on CIFAR-100, the best test epoch.
          Not run by us to the end: it needs an accelerator; docs/tables has a scaled-down run.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """Madono's protocol."""
    return protocols.shake_drop("ele", "ele")
