"""Table II: encryption-then-compression (EtC) with ConvMixer-256/8.

Command:  python -m ppvit_jax.main --config=configs/table2/etc_convmixer.py \\
              --workdir=runs/table2/etc_convmixer
Table:    python -m ppvit_jax reproduce --table=2 --rows=etc_convmixer --output=runs/table2
Expected: 92.72% in the paper.
          Not run by us to the end: it needs an accelerator; docs/tables has a scaled-down run.
Status:   partly inferred; see ppvit_jax/experiments/protocols.py.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """A protocol from public code, partly inferred."""
    return protocols.convmixer("ConvMixer-256/8", "etc")
