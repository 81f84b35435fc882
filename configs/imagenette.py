"""Imagenette with ViT-B/16 by the paper's protocol: block scrambling + pixel shuffling, adapted.

Command:  ppvit train --config=configs/imagenette.py --workdir=runs/imagenette --config.data.dir=DIR
Data:     DIR is a folder in which tensorflow-datasets has prepared imagenette/320px-v2. Alternatively, unpack the
          published archive imagenette2-320.tgz and use configs/image_folder.py with --config.data.test_split=val.
Weights:  those of configs/cifar10.py.
Expected: 99.2% test accuracy in the paper. We have not run this configuration to the end, because it needs a GPU
          or TPU.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols


def get_config() -> Config:
    """Returns the protocol of configs/cifar10.py, with images cropped to their center square."""
    config = protocols.paper()
    config.data.name = "imagenette/320px-v2"
    config.data.test_split = "validation"
    return config
