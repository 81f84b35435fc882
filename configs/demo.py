"""The embedded default: scikit-learn's digits and the small ViT in the package. Needs no network.

Command:  python -m ppvit_jax reproduce table1 --config=configs/demo.py --output=runs/demo   (make demo)
One run:  python -m ppvit_jax.main --config=configs/demo.py --workdir=runs/digits
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
