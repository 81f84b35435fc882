"""CIFAR-10 with the small ViT in the package: Table I's seven arms on a laptop's processor.

Command:  python -m ppvit_jax prepare cifar10      (or --config.data.dir=DIR for a folder that tfds has prepared)
          python -m ppvit_jax reproduce table1 --config=configs/cifar10_micro.py --output=runs/cifar10_micro
Expected: see the README's table; about 11 minutes an arm on 2 cores.
"""

from ppvit_jax.config import Config, default_config


def get_config() -> Config:
    """Micro ViT pre-trained on Tiny-ImageNet, images at 64x64, 3 epochs of SGD with a cosine schedule."""
    config = default_config()
    config.checkpoint = "embedded"
    config.model = "ViT-Micro/8"
    config.image_size = 64
    config.data.name = "cifar10"
    config.optimizer.learning_rate = 0.01
    config.optimizer.schedule = "cosine"
    config.epochs = 3
    return config
