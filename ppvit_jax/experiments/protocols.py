"""Training protocols of the methods that the paper compares with, as public code or outlines give them.

Choices that a source does not state are inferred, and called so. The paper's own protocol is
`ppvit_jax.config.default_config`.
"""

from ppvit_jax.config import Config, default_config
from ppvit_jax.encryption import usual_block_size


def from_scratch(model: str, encryption: str, image_size: int = 32) -> Config:
    """Returns CIFAR-10 at its own size, a new model, no adaptation; the caller sets the rest of the protocol."""
    config = default_config()
    config.checkpoint = ""
    config.model = model
    config.image_size = image_size
    config.encryption = encryption
    config.adapt = False
    config.augmentation = "flip+crop"
    return config


def shake_drop(encryption: str) -> Config:
    """PyramidNet-110 with ShakeDrop by Madono's public code (its paper says 300 epochs and batch 128).

    The adaptation network is that of the encryption: "le", "ele", or "none" for plain images. SGD with Nesterov
    momentum 0.9, learning rate 0.1 and a tenth of it from epochs 150 and 225 of 305, weight decay 0.0005, batch 512;
    crops by 4 pixels and flips before the encryption, no normalization. Its tables report the best test epoch.
    """
    config = from_scratch("PyramidNet-110/270", encryption)
    config.model_options.adaptation_network = encryption
    # Also set for plain images, which have no blocks.
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
    """ResNet-18. All inferred: the source's numbers could not be had, and these are usual for CIFAR.

    SGD with momentum 0.9, learning rate 0.1 and a tenth of it from epochs 100 and 150 of 200, weight decay 0.0005,
    batch 128; the stem of a 3x3 convolution; crops by 4 pixels and flips.
    """
    config = from_scratch("ResNet-18", encryption)
    config.optimizer.learning_rate = 0.1
    config.optimizer.schedule = "step"
    config.optimizer.milestones = (0.5, 0.75)
    config.epochs = 200
    config.batch_size = 128
    return config


def convmixer(encryption: str, model: str = "ConvMixer-256/8", *, image_size: int = 32, patch_size: int = 2) -> Config:
    """ConvMixer by comments in public code for EtC images: patch 2, kernel 5, triangular learning rate up to 0.05,
    weight decay 0.005, RandAugment of two operations of magnitude 12, 100 epochs.

    Inferred: AdamW, batch 512, gradients clipped to norm 1, the peak at two fifths of the run, blocks of the
    encryption that are the model's patches, and every size but that of ConvMixer-256/8.
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
    """ConvMixer-512/16 with an adaptive matrix, in patches and blocks of 4.

    All inferred: there is no public code of model or training.
    """
    config = convmixer(encryption, "ConvMixer-512/16", patch_size=4)
    config.model_options.adaptive_matrix = "free"
    return config


def large_convmixer(encryption: str) -> Config:
    """ConvMixer-384/8 at 224x224, in patches of 16; mostly inferred from the protocol of ConvMixer-256/8."""
    return convmixer(encryption, "ConvMixer-384/8", image_size=224, patch_size=16)


def neuracrypt() -> Config:
    """NeuraCrypt by its public code: 256x256, Adam, learning rate 0.0001, weight decay 0.001, batch 128, 25 epochs;
    encodings depend on their batch, as there. It stops early with a patience of 10 epochs, which we do not (the best
    test epoch is in `result.json`), and balances the classes of a batch, which CIFAR's are on the whole.
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
    """ViT-B/16 by the paper's protocol, not adapted; the weights are ViT-B_16.npz, pre-trained on ImageNet-21k.

    The paper's Table II is assumed to share this protocol between its rows of ViT-B/16.
    """
    config = default_config()
    config.encryption = encryption
    config.adapt = False
    return config


def adapted_vit_b16(encryption: str) -> Config:
    """ViT-B/16 by the paper's protocol, adapted to the encryption."""
    config = vit_b16(encryption)
    config.adapt = True
    return config


def imagenette(config: Config) -> Config:
    """The same protocol on Imagenette; images are cropped to their center square."""
    config.data.name = "imagenette/320px-v2"
    config.data.test_split = "validation"
    return config
