"""CIFAR-10 with ViT-B/16 by the paper's protocol, block scrambling + pixel shuffling, adapted.

Command:  python -m ppvit_jax prepare cifar10
          python -m ppvit_jax.main --config=configs/cifar10.py --workdir=runs/cifar10
Table I:  python -m ppvit_jax reproduce table1 --config=configs/cifar10.py --output=runs/table1
Weights:  --config.checkpoint=ViT-B_16.npz, pre-trained on ImageNet-21k (the README says where to get them).
Expected: 98.98% test accuracy in the paper (plain images 99.00%). Not run by us to the end: it needs a GPU or TPU;
          configs/cifar10_micro.py is what we measured.
"""

from ppvit_jax.config import Config, default_config


def get_config() -> Config:
    """224x224, batch 32, SGD with momentum 0.9, learning rate 0.001, weight decay 0.0005, 15 epochs."""
    return default_config()
