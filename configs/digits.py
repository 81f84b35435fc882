"""Handwritten digits from scikit-learn and the small ViT in the package. Needs no network.

Command:  ppvit reproduce table1 --config=configs/digits.py --output=runs/digits --arms=all
One run:  ppvit train --config=configs/digits.py --workdir=runs/digits_adapted
"""

from ppvit_jax.config import Config, default_config


def get_config() -> Config:
    """Micro ViT at 64x64, SGD 0.003, 4 epochs."""
    config = default_config()
    config.checkpoint = "embedded"
    config.model = "ViT-Micro/8"
    config.image_size = 64
    config.data.source = "embedded"
    config.data.name = "digits"
    config.optimizer.learning_rate = 0.003
    config.epochs = 4
    return config
