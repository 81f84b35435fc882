"""Training protocols of the methods that the paper compares with, from public code or published outlines.

Choices that a source does not state are marked as inferred.
"""

from pathlib import Path

from ppvit_jax.config import Config, default_config
from ppvit_jax.encryption import usual_block_size

_HUB_NAME = "hf:timm/vit_base_patch16_224.augreg_in21k"


def paper() -> Config:
    """Returns the paper's own protocol, `default_config`, which fetches CIFAR and the weights on first use.

    The weights are ViT-B_16.npz in the current folder if it is there, and otherwise timm's ViT-B/16 on the hub. Both
    are pre-trained on ImageNet-21k.
    """
    config = default_config()
    config.data.download = True
    if not Path(config.checkpoint).exists():
        config.checkpoint = _HUB_NAME
    return config


def from_scratch(model: str, encryption: str, image_size: int = 32) -> Config:
    """Returns a configuration for training a new model on CIFAR-10, not adapted; callers set the rest of the protocol.

    Args:
      model: name of the model.
      encryption: the encryption, such as "etc", or "none".
      image_size: side of the images in pixels; the default is CIFAR's own.
    """
    config = paper()
    config.checkpoint = ""
    config.model = model
    config.image_size = image_size
    config.encryption = encryption
    config.adapt = False
    config.augmentation = "flip+crop"
    return config


def shake_drop(encryption: str) -> Config:
    """Returns the protocol of PyramidNet-110 with ShakeDrop in Madono's public code.

    SGD with Nesterov momentum 0.9, learning rate 0.1, divided by 10 at epochs 150 and 225 of 305, weight decay 0.0005,
    batch 512; crops by 4 pixels and flips before the encryption, no normalization. Madono's paper differs: 300 epochs
    and batch 128. Its tables report the best test epoch.

    Args:
      encryption: "le", "ele" or "none"; it also selects the adaptation network.
    """
    config = from_scratch("PyramidNet-110/270", encryption)
    config.model_options.adaptation_network = encryption
    # Plain images have no blocks, but their configuration sets the size as well.
    config.block_size = usual_block_size("le", 0)
    config.mean, config.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    config.optimizer.learning_rate = 0.1
    config.optimizer.nesterov = True
    config.optimizer.schedule = "step"
    config.optimizer.milestones = (150 / 305, 225 / 305)
    config.epochs = 305
    config.batch_size = 512
    return config


def resnet(encryption: str) -> Config:
    """Returns the protocol of ResNet-18. It is inferred: the source was not available; this one is usual for CIFAR.

    SGD with momentum 0.9, learning rate 0.1, divided by 10 at epochs 100 and 150 of 200, weight decay 0.0005, batch
    128; a stem with a 3x3 convolution; crops by 4 pixels and flips.
    """
    config = from_scratch("ResNet-18", encryption)
    config.optimizer.learning_rate = 0.1
    config.optimizer.schedule = "step"
    config.optimizer.milestones = (0.5, 0.75)
    config.epochs = 200
    config.batch_size = 128
    return config


def convmixer(encryption: str, model: str = "ConvMixer-256/8", *, image_size: int = 32, patch_size: int = 2) -> Config:
    """Returns the protocol of ConvMixer in the comments of public code for EtC images.

    Patch 2, kernel 5, triangular learning rate with peak 0.05, weight decay 0.005, RandAugment with two operations of
    magnitude 12, 100 epochs. Inferred: AdamW, batch 512, gradients clipped to norm 1, the peak at two fifths of the
    run, encryption blocks that equal the model's patches, and all sizes other than those of ConvMixer-256/8.

    Args:
      encryption: the encryption, such as "etc", or "none".
      model: name of the model.
      image_size, patch_size: in pixels.
    """
    config = from_scratch(model, encryption, image_size)
    config.model_options.patch_size = patch_size
    config.augmentation = "flip+crop+rand"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 0.05
    config.optimizer.weight_decay = 0.005
    config.optimizer.clip_norm = 1.0
    config.optimizer.schedule = "triangular"
    config.optimizer.milestones = (0.4,)
    config.epochs = 100
    config.batch_size = 512
    return config


def adaptive_convmixer(encryption: str) -> Config:
    """Returns the protocol of ConvMixer-512/16 with an adaptive matrix, with patches and blocks of 4 pixels.

    It is inferred: there is no public code of the model or its training.
    """
    config = convmixer(encryption, "ConvMixer-512/16", patch_size=4)
    config.model_options.adaptive_matrix = "free"
    return config


def large_convmixer(encryption: str) -> Config:
    """Returns the protocol of ConvMixer-384/8 at 224x224 with patches of 16, mostly inferred from ConvMixer-256/8."""
    return convmixer(encryption, "ConvMixer-384/8", image_size=224, patch_size=16)


def neuracrypt() -> Config:
    """Returns the protocol of NeuraCrypt in its public code.

    256x256, Adam, learning rate 0.0001, weight decay 0.001, batch 128, 25 epochs; encodings depend on their batch. Two
    things differ from the public code. It stops early with a patience of 10 epochs; we do not, but `result.json` has
    the best test epoch. It balances the classes of each batch; CIFAR's classes are only balanced overall.
    """
    config = from_scratch("NeuraCrypt-2048/16", "neuracrypt:statistics=batch", image_size=256)
    config.augmentation = "none"
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 0.0001
    config.optimizer.weight_decay = 0.001
    config.epochs = 25
    config.batch_size = 128
    return config


def vit_b16(encryption: str) -> Config:
    """Returns the paper's protocol for ViT-B/16, not adapted; see `paper` for the weights.

    We assume that all ViT-B/16 rows of the paper's Table II share this protocol.
    """
    config = paper()
    config.encryption = encryption
    config.adapt = False
    return config


def adapted_vit_b16(encryption: str) -> Config:
    """Returns the paper's protocol for ViT-B/16, adapted to the encryption."""
    config = vit_b16(encryption)
    config.adapt = True
    return config


def imagenette(config: Config) -> Config:
    """Changes a protocol to Imagenette, with images cropped to their center square, and returns it."""
    config.data.name = "imagenette/320px-v2"
    config.data.test_split = "validation"
    return config
