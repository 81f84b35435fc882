"""Your own images in a folder of class folders, with ViT-B/16, encrypted and adapted.

Command:  python -m ppvit_jax.main --config=configs/image_folder.py --config.data.dir=DIR --workdir=runs/mine
Data:     DIR/train/CLASS/*.png and DIR/test/CLASS/*.png, or DIR/CLASS/*.png, of which a fifth of each class is
          kept for testing. JPEG, PNG, WebP and whatever else Pillow reads.
Weights:  --config.checkpoint=ViT-B_16.npz, pre-trained on ImageNet-21k (the README says where to get them).
Expected: with --config.adapt=True the accuracy of --config.encryption=none, to the noise of floating point.
"""

from ppvit_jax.config import Config, default_config


def get_config() -> Config:
    """The paper's optimizer; crops and flips as augmentation, cosine schedule."""
    config = default_config()
    config.data.source = "image_folder"
    config.data.name = ""
    config.augmentation = "flip+crop"
    config.optimizer.schedule = "cosine"
    return config
