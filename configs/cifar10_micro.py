"""CIFAR-10 with the small ViT in the package: the seven arms (runs) of Table I on a laptop's processor.

Command:  ppvit reproduce table1 --arms=all --config=configs/cifar10_micro.py --output=runs/cifar10_micro
Data:     downloaded on first use, or --config.data.dir=DIR, a folder that tensorflow-datasets has prepared.
Expected: docs/cifar10/table.md; about 11 minutes per arm on 2 cores.
"""

from ppvit_jax.config import Config, default_config


def get_config() -> Config:
    """Returns a protocol for the micro ViT: images at 64x64, 3 epochs of SGD, cosine schedule."""
    config = default_config()
    config.checkpoint = "embedded"
    config.model = "ViT-Micro/8"
    config.image_size = 64
    config.data.download = True
    config.optimizer.learning_rate = 0.01
    config.optimizer.schedule = "cosine"
    config.epochs = 3
    return config
