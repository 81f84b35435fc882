"""Imagenette with ViT-B/16 by the paper's protocol: block scrambling + pixel shuffling, adapted.

Command:  ppvit train --config=configs/imagenette.py --workdir=runs/imagenette --config.data.dir=DIR
Data:     DIR is a folder in which tensorflow-datasets has prepared imagenette/320px-v2. Alternatively, unpack the
          published archive imagenette2-320.tgz and use configs/image_folder.py with --config.data.test_split=val.
Weights:  --config.checkpoint=ViT-B_16.npz, pre-trained on ImageNet-21k (see the documentation for the download).
Expected: 99.2% test accuracy in the paper. We have not run this configuration to the end, because it needs a GPU
          or TPU.
"""

from ppvit_jax.config import Config, default_config


def get_config() -> Config:
    """Returns the protocol of configs/cifar10.py, with images cropped to their center square."""
    config = default_config()
    config.data.name = "imagenette/320px-v2"
    config.data.test_split = "validation"
    return config
