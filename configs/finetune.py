"""CIFAR-10 with a published model, by its name on the Hugging Face hub, adapted to block scrambling + pixel shuffling.

Command:  ppvit train --config=configs/finetune.py:dinov2-small --workdir=runs/dinov2-small
Models:   ppvit_jax/experiments/finetuning.py lists their names, recipes, sources and published results. docs/models.md
          says what each family absorbs, and under which license its weights are.
Weights:  fetched from the hub on first use, and read from the cache afterwards.
Data:     CIFAR-10, downloaded on first use.
Expected: 98.92% and 99.03% test accuracy for vit-base at 384x384, as google-research/vision_transformer reports, and
          83.66% on ImageNet for mae-base, as facebookresearch/mae reports. The results that the sources report for the
          other models are of frozen features or of zero-shot classification; the list has them. We have not run these
          recipes, because they need an accelerator.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import finetuning


def get_config(name: str = "") -> Config:
    """Returns the recipe of the model that --config names after the colon."""
    return finetuning.make_config(name)
