"""Table III: plain images with ConvMixer-384/8.

Command:  python -m ppvit_jax.main --config=configs/table3/plain_convmixer.py --workdir=runs/table3/plain_convmixer \\
              --config.data.dir=DIR
Table:    python -m ppvit_jax reproduce --table=3 --rows=plain_convmixer --output=runs/table3
Expected: 96.10% in the paper. Not run by us to the end: it needs an accelerator.
Status:   mostly inferred; see ppvit_jax/experiments/protocols.py.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """A protocol from public code, mostly inferred; patches of 16 at 224x224."""
    return protocols.imagenette(protocols.convmixer("ConvMixer-384/8", "none", image_size=224, patch_size=16))
