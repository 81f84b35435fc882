"""Your own images, in one folder per class, with ViT-B/16: encrypted and adapted.

Command:  ppvit train --config=configs/image_folder.py --config.data.dir=DIR --workdir=runs/mine
Data:     DIR/train/CLASS/*.png and DIR/test/CLASS/*.png, or DIR/CLASS/*.png, where a fifth of each class is
          held out for testing. Raster formats that Pillow reads work, such as JPEG, PNG, WebP and AVIF.
Weights:  those of configs/cifar10.py.
Expected: the accuracy on plain images (--config.encryption=none), up to floating-point rounding.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """Returns the paper's protocol with crops and flips as augmentation and a cosine schedule."""
    config = protocols.paper()
    config.data.source = "image_folder"
    config.data.name = ""
    config.augmentation = "flip+crop"
    config.optimizer.schedule = "cosine"
    return config
