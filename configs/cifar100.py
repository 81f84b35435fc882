"""CIFAR-100 with ViT-B/16 by the paper's protocol: block scrambling + pixel shuffling, adapted.

Command:  ppvit train --config=configs/cifar100.py --workdir=runs/cifar100
Weights:  those of configs/cifar10.py.
Data:     downloaded on first use to the folder of tensorflow-datasets (170 MB), as `ppvit prepare cifar100` does.
Expected: 92.58% test accuracy in the paper. We have not run this configuration to the end,
          because it needs a GPU or TPU.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """Returns the protocol of configs/cifar10.py for 100 classes."""
    config = protocols.paper()
    config.data.name = "cifar100"
    return config
