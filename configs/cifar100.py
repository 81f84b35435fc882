"""CIFAR-100 with ViT-B/16 by the paper's protocol: block scrambling + pixel shuffling, adapted.

Command:  ppvit prepare cifar100
          ppvit train --config=configs/cifar100.py --workdir=runs/cifar100
Weights:  --config.checkpoint=ViT-B_16.npz, pre-trained on ImageNet-21k (see the documentation for the download).
Expected: 92.58% test accuracy in the paper. We have not run this configuration to the end,
          because it needs a GPU or TPU.
"""

from ppvit_jax.config import Config, default_config


def get_config() -> Config:
    """Returns the protocol of configs/cifar10.py for 100 classes."""
    config = default_config()
    config.data.name = "cifar100"
    return config
