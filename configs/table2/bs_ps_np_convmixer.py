"""Table II: block scrambling + pixel shuffling + negative-positive transform with
ConvMixer-512/16 and an adaptive matrix.

Command:  python -m ppvit_jax.main --config=configs/table2/bs_ps_np_convmixer.py \\
              --workdir=runs/table2/bs_ps_np_convmixer
Table:    python -m ppvit_jax reproduce --table=2 --rows=bs_ps_np_convmixer --output=runs/table2
Expected: 92.65% in the paper.
          Not run by us to the end: it needs an accelerator; docs/tables has a scaled-down run.
Status:   a reconstruction: there is no public code of model or training.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """An inferred protocol; patches and blocks of 4."""
    config = protocols.convmixer("ConvMixer-512/16", "bs+ps+np", patch_size=4)
    config.model_options.adaptive_matrix = "free"
    return config
