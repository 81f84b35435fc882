"""CIFAR-100 with ViT-B/16 by the paper's protocol, block scrambling + pixel shuffling, adapted.

Command:  python -m ppvit_jax prepare cifar100
          python -m ppvit_jax.main --config=configs/cifar100.py --workdir=runs/cifar100
Weights:  --config.checkpoint=ViT-B_16.npz, pre-trained on ImageNet-21k (the README says where to get them).
Expected: 92.58% test accuracy in the paper. Not run by us to the end: it needs a GPU or TPU.
"""

from ppvit_jax.config import Config, default_config


def get_config() -> Config:
    """The protocol of configs/cifar10.py on 100 classes."""
    config = default_config()
    config.data.name = "cifar100"
    return config
