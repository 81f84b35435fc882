"""Crops of six photographs and the small ViT in the package. Needs no network.

Command:  ppvit reproduce table1 --config=configs/demo.py --output=runs/demo     (make demo)
One run:  ppvit train --config=configs/demo.py --workdir=runs/photographs
Expected: see docs/demo/table.md; bs+ps adapted as plain, bs+ps not adapted some ten points below (docs/demo/keys.md).
"""

from ppvit_jax.config import Config, default_config


def get_config() -> Config:
    """Micro ViT at 64x64, the paper's SGD 0.001, 3 epochs."""
    config = default_config()
    config.checkpoint = "embedded"
    config.model = "ViT-Micro/8"
    config.image_size = 64
    config.data.source = "embedded"
    config.data.name = "photographs"
    config.epochs = 3
    return config
