"""Recipes that fine-tune published models on CIFAR-10, adapted to block scrambling + pixel shuffling.

To add one, add an entry to `BACKBONES`: `configs/finetune.py:NAME` loads it. Every recipe is the one that the model's
authors publish, as far as this program has its parts. It has no mixup, CutMix, stochastic depth or layer-wise decay of
the learning rate. We have not run these recipes, because they need an accelerator.
"""

import dataclasses
from collections.abc import Callable, Mapping

from ppvit_jax.config import Config, default_config
from ppvit_jax.errors import UserError

# CIFAR-10 has this many training images; a published warm-up in epochs becomes one in steps.
_TRAIN_EXAMPLES = 50_000


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A published model with its recipe.

    Attributes:
      name: name on the command line.
      checkpoint: name of the weights on the Hugging Face hub, after "hf:".
      model: name of the model.
      recipe: function that returns the training recipe.
      published: the result that the source reports, with the source. It is not ours, and most are of another task.
      options: the model's options that differ from its family's.
    """

    name: str
    checkpoint: str
    model: str
    recipe: Callable[[], Config]
    published: str
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)


def vit() -> Config:
    """Returns the recipe for CIFAR-10 of google-research/vision_transformer (vit_jax/configs), at 224x224.

    SGD with momentum 0.9, learning rate 0.01, cosine, 500 warm-up steps, 10,000 steps of batch 512, gradients clipped
    to norm 1; Inception's crops and flips. The source has images of 384x384.
    """
    config = _recipe("sgd", 0.01, weight_decay=0.0, epochs=103, batch_size=512, warmup_steps=500)
    config.optimizer.clip_norm = 1.0
    return config


def deit() -> Config:
    """Returns the recipe for CIFAR-10 of DeiT's authors (facebookresearch/deit, issue 45), in 100 epochs.

    SGD with learning rate 0.01, weight decay 0.0001, batch 768, cosine, 5 epochs of warm-up, label smoothing 0.1. The
    source trains for 1,000 epochs, with mixup, CutMix and repeated augmentation.
    """
    config = _recipe("sgd", 0.01, weight_decay=1e-4, epochs=100, batch_size=768, warmup_epochs=5)
    config.label_smoothing = 0.1
    return config


def deit_3() -> Config:
    """Returns the recipe of DeiT III for its final size (facebookresearch/deit, README_revenge.md).

    AdamW with learning rate 0.00001, weight decay 0.1, batch 512, 20 epochs, cosine, 5 epochs of warm-up, label
    smoothing 0.1. The source trains on ImageNet, with mixup, CutMix and RandAugment.
    """
    config = _recipe("adamw", 1e-5, weight_decay=0.1, epochs=20, batch_size=512, warmup_epochs=5)
    config.label_smoothing = 0.1
    return config


def dino() -> Config:
    """Returns the recipe for CIFAR-10 of DINO's authors (facebookresearch/dino, issue 81), in 100 epochs.

    AdamW with learning rate 0.0000075, weight decay 0.05, batch 768, cosine, 5 epochs of warm-up, label smoothing 0.1.
    The source trains for 1,000 epochs, with mixup, CutMix, RandAugment and stochastic depth, and leaves the amount of
    smoothing open.
    """
    config = _recipe("adamw", 7.5e-6, weight_decay=0.05, epochs=100, batch_size=768, warmup_epochs=5)
    config.label_smoothing = 0.1
    return config


def mae() -> Config:
    """Returns the recipe with which MAE is fine-tuned on ImageNet (facebookresearch/mae, FINETUNE.md).

    AdamW with weight decay 0.05, betas 0.9 and 0.999, batch 1,024, 100 epochs, cosine, 5 epochs of warm-up; the head
    takes the mean of the patch tokens. The source's learning rate is 0.002 for the last layer and decays by 0.65 from
    layer to layer. Without this decay it is too high: 0.0001 is our choice.
    """
    return _recipe("adamw", 1e-4, weight_decay=0.05, epochs=100, batch_size=1024, warmup_epochs=5)


def clip() -> Config:
    """Returns the recipe with which CLIP is fine-tuned end to end (arXiv 2109.01903, mlfoundations/wise-ft).

    AdamW with learning rate 0.00003, batch 512, 10 epochs, cosine. The source trains on ImageNet; weight decay 0.1 and
    one epoch of warm-up are our choice.
    """
    return _recipe("adamw", 3e-5, weight_decay=0.1, epochs=10, batch_size=512, warmup_epochs=1)


def like_clip() -> Config:
    """Returns the recipe of `clip` for a model whose authors publish features and no recipe of fine-tuning."""
    return clip()


def _recipe(
    optimizer: str,
    learning_rate: float,
    *,
    weight_decay: float,
    epochs: int,
    batch_size: int,
    warmup_epochs: int = 0,
    warmup_steps: int = 0,
) -> Config:
    """Returns CIFAR-10 at 224x224 with Inception's crops and flips, a cosine schedule, and a batch in 8 parts."""
    config = default_config()
    config.data.download = True
    config.augmentation = "random_resized_crop"
    config.optimizer.name = optimizer
    config.optimizer.learning_rate = learning_rate
    config.optimizer.weight_decay = weight_decay
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = warmup_steps or warmup_epochs * (_TRAIN_EXAMPLES // batch_size)
    config.epochs = epochs
    config.batch_size = batch_size
    config.accumulation = 8
    return config


_GELU = {"activation": "gelu"}
_LINEAR = "ImageNet accuracy of a linear classifier on frozen features"
BACKBONES: tuple[Backbone, ...] = (
    Backbone(
        "dinov2-small",
        "facebook/dinov2-small",
        "DINOv2-S/14",
        like_clip,
        f"81.1% {_LINEAR} (facebookresearch/dinov2)",
    ),
    Backbone(
        "dinov2-base",
        "facebook/dinov2-base",
        "DINOv2-B/14",
        like_clip,
        f"84.5% {_LINEAR} (facebookresearch/dinov2)",
    ),
    Backbone(
        "dinov2-base-registers",
        "facebook/dinov2-with-registers-base",
        "DINOv2-B/14-registers",
        like_clip,
        f"84.6% {_LINEAR} (facebookresearch/dinov2)",
    ),
    Backbone("siglip-base", "timm/vit_base_patch16_siglip_224.webli", "SigLIP-B/16", like_clip, ""),
    Backbone(
        "siglip2-base",
        "google/siglip2-base-patch16-224",
        "SigLIP-B/16",
        like_clip,
        "78.2% zero-shot accuracy on ImageNet (arXiv 2502.14786)",
    ),
    Backbone(
        "clip-base",
        "openai/clip-vit-base-patch16",
        "CLIP-B/16",
        clip,
        "90.77% zero-shot accuracy on CIFAR-10 (mlfoundations/open_clip)",
    ),
    Backbone(
        "openclip-base",
        "timm/vit_base_patch16_clip_224.laion2b",
        "CLIP-B/16",
        clip,
        "94.94% zero-shot accuracy on CIFAR-10 (mlfoundations/open_clip)",
        _GELU,
    ),
    Backbone(
        "deit-small",
        "facebook/deit-small-patch16-224",
        "ViT-S/16",
        deit,
        "79.9% accuracy on ImageNet before fine-tuning (facebookresearch/deit)",
        _GELU,
    ),
    Backbone(
        "deit-small-distilled",
        "facebook/deit-small-distilled-patch16-224",
        "DeiT-S/16-distilled",
        deit,
        "81.2% accuracy on ImageNet before fine-tuning (facebookresearch/deit)",
    ),
    Backbone(
        "deit3-small",
        "timm/deit3_small_patch16_224.fb_in22k_ft_in1k",
        "DeiT-S/16-III",
        deit_3,
        "83.1% accuracy on ImageNet before fine-tuning (facebookresearch/deit)",
    ),
    Backbone("dino-small", "facebook/dino-vits16", "ViT-S/16", dino, f"77.0% {_LINEAR} (facebookresearch/dino)", _GELU),
    Backbone(
        "mae-base",
        "timm/vit_base_patch16_224.mae",
        "ViT-B/16",
        mae,
        "83.66% accuracy on ImageNet after fine-tuning (facebookresearch/mae)",
        _GELU | {"pool": "mean"},
    ),
    Backbone(
        "vit-base",
        "timm/vit_base_patch16_224.orig_in21k",
        "ViT-B/16",
        vit,
        "98.92% and 99.03% accuracy on CIFAR-10 in two runs at 384x384 (google-research/vision_transformer)",
    ),
)


def make_config(name: str) -> Config:
    """Returns the configuration of a published model.

    Args:
      name: a name in `BACKBONES`.

    Raises:
      UserError: the name is empty, or there is no such model.
    """
    backbones = {backbone.name: backbone for backbone in BACKBONES}
    if not name:
        raise UserError(
            f"--config names no model: name one, as in configs/finetune.py:dinov2-small, from {', '.join(backbones)}"
        )
    if name not in backbones:
        raise UserError(f"configs/finetune.py has no model {name!r}: use one of {', '.join(backbones)}")
    backbone = backbones[name]
    config = backbone.recipe()
    config.checkpoint = f"hf:{backbone.checkpoint}"
    config.model = backbone.model
    config.model_options.update(backbone.options)
    return config
