"""CIFAR-10 with NeuraCrypt and its own classifier, a DeepViT of one layer. Not a row of the paper's tables.

Command:  python -m ppvit_jax.main --config=configs/neuracrypt.py --workdir=runs/neuracrypt
Expected: not published for this data set, and not run by us to the end: it needs an accelerator. NeuraCrypt was made
          for X-rays in gray, and loses much accuracy on color images.
Status:   the encoder is that of public code; some details of the classifier are inferred, see its docstring.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """NeuraCrypt's protocol."""
    return protocols.neuracrypt()
