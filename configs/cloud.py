"""The cloud's side: fine-tunes an adapted checkpoint on an encrypted folder. It has no key and needs none.

Owner:    ppvit keygen --output secret.key
          ppvit encrypt --key secret.key --input images --output encrypted
          ppvit adapt --key secret.key --checkpoint ViT-B_16.npz --output adapted.npz
Command:  ppvit train --config=configs/cloud.py --workdir=runs/cloud \\
              --config.checkpoint=adapted.npz --config.data.dir=encrypted
Data:     encrypted/train/CLASS/*.png and encrypted/test/CLASS/*.png, or encrypted/CLASS/*.png, with manifest.json. For
          a data set that was encrypted with --tfds: --config.data.source=tfds --config.data.name=cifar10.
Owner:    ppvit restore --key secret.key --checkpoint runs/cloud/checkpoint.npz --output tuned.npz
Expected: the accuracy of the plain model on plain images, up to floating-point rounding.
"""

from ppvit_jax.config import Config, default_config


def get_config() -> Config:
    """Returns the paper's protocol for ViT-B/16; the images are already encrypted, and the model is already adapted."""
    config = default_config()
    config.checkpoint = "adapted.npz"
    config.data.source = "image_folder"
    config.data.name = ""
    config.data.dir = "encrypted"
    config.encryption = "none"
    config.adapt = False
    return config
