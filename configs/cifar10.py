"""CIFAR-10 with ViT-B/16 by the paper's protocol: block scrambling + pixel shuffling, adapted.

Command:  ppvit train --config=configs/cifar10.py --workdir=runs/cifar10
Table I:  ppvit reproduce table1 --arms=all --config=configs/cifar10.py --output=runs/table1
Weights:  ViT-B_16.npz in the current folder, if it is there. Otherwise timm's ViT-B/16, pre-trained on ImageNet-21k, is
          downloaded by its name on the Hugging Face hub on first use (410 MB); pip install 'ppvit-jax[hub]' first.
Data:     downloaded on first use to the folder of tensorflow-datasets (170 MB), as `ppvit prepare cifar10` does.
Expected: 98.98% test accuracy in the paper (99.00% on plain images). We have not run this configuration to the end,
          because it needs a GPU or TPU; we measured configs/cifar10_micro.py instead.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """Returns the paper's protocol: 224x224, batch 32, SGD, learning rate 0.001, weight decay 0.0005, 15 epochs."""
    return protocols.paper()
