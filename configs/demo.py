"""Crops of six photographs and the small ViT in the package. Needs no network.

Command:  ppvit reproduce table1 --config=configs/demo.py --output=runs/demo     (make demo)
One run:  ppvit train --config=configs/demo.py --workdir=runs/photographs
Expected: 92.6 % plain and encrypted with adaptation, 63 to 75 % without, depending on the key (docs/demo/keys.md).
"""

from ppvit_jax.config import Config, default_config


def get_config() -> Config:
    """Micro ViT at 64x64, SGD 0.0015 with a cosine schedule, 3 epochs."""
    config = default_config()
    config.checkpoint = "embedded"
    config.model = "ViT-Micro/8"
    config.image_size = 64
    config.data.source = "embedded"
    config.data.name = "photographs"
    config.optimizer.learning_rate = 0.0015
    config.optimizer.schedule = "cosine"
    config.epochs = 3
    return config
