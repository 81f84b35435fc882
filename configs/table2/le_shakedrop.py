"""Table II: learnable encryption (LE) with LE-AdaptNet and ShakeDrop.

Command:  python -m ppvit_jax.main --config=configs/table2/le_shakedrop.py \\
              --workdir=runs/table2/le_shakedrop
Table:    python -m ppvit_jax reproduce --table=2 --rows=le_shakedrop --output=runs/table2
Expected: 94.49% in the paper, 75.48% on CIFAR-100, the best test epoch.
          Not run by us to the end: it needs an accelerator; docs/tables has a scaled-down run.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """Madono's protocol."""
    return protocols.shake_drop("le", "le")
