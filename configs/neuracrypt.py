"""CIFAR-10 with NeuraCrypt and its own classifier, a DeepViT of one layer. It is not a row of the paper's tables.

Command:  ppvit train --config=configs/neuracrypt.py --workdir=runs/neuracrypt
Expected: no accuracy is published for this data set, and we have not run this configuration to the end, because it
          needs an accelerator. NeuraCrypt was made for grayscale X-rays, and loses much accuracy on color images.
Status:   the encoder follows public code; some details of the classifier are inferred (see its docstring).
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """Returns NeuraCrypt's protocol."""
    return protocols.neuracrypt()
