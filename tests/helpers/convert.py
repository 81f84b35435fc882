"""Runs the conversion scripts, and makes the models and images for comparing their results."""

import runpy
import sys
from unittest import mock

import jax
import numpy as np
from PIL import Image

from helpers.pytorch import torch
from helpers.tiny import random_images, random_params
from ppvit_jax import adaptation, checkpoint, encryption, models
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.keys import SecretKey
from ppvit_jax.models import vit

KEY = SecretKey(bytes(range(32)))
CLASSES = tuple(f"class {number}" for number in range(5))


def convert(script, *arguments):
    """Runs `python -m checkpoints_convert.SCRIPT` in this process and returns its exit status."""
    with mock.patch.object(sys, "argv", [script, *map(str, arguments)]):
        try:
            runpy.run_module(f"checkpoints_convert.{script}", run_name="__main__")
        except SystemExit as status:
            return status.code
    raise AssertionError("the script did not end with sys.exit")


def tiny_vit(image_size=64, name="ViT-Ti/16", **fields):
    """Returns the configuration of a small Vision Transformer for CLASSES."""
    return vit.parse_name(name, image_size=image_size, num_classes=len(CLASSES), **fields)


def write_model(path, config, *, adapted=False, seed=0):
    """Writes a checkpoint of random weights, plain or adapted to bs+ps with KEY; returns parameters and metadata."""
    params = random_params(config, seed)
    metadata = Metadata(models.model_name(config), config.image_size, class_names=CLASSES)
    if adapted:
        params = adaptation.adapt(params, permutations(config))
        metadata = Metadata(metadata.model, config.image_size, "bs+ps", KEY.fingerprint, CLASSES)
    checkpoint.write(path, params, metadata)
    return params, metadata


def permutations(config):
    """Returns the permutations of bs+ps with KEY for a model."""
    return KEY.permutations("bs+ps", image_size=config.image_size, patch_size=config.patch_size)


def logits(params, config, images):
    """Returns the logits [n, classes] of our model for images, uint8 [n, height, width, 3]."""
    return np.asarray(jax.jit(models.build(config).apply)(params, images.astype(np.float32) / 127.5 - 1))


def encrypted_files(folder, config, count=2):
    """Writes encrypted images as PNG files; returns their paths and the plain images."""
    images = random_images(count, config.image_size)
    paths = []
    for number, image in enumerate(encryption.encrypt(images, permutations(config), config.patch_size)):
        paths.append(folder / f"{number}.png")
        Image.fromarray(image).save(paths[-1])
    return paths, images


def arrays(path):
    """Returns the arrays and the metadata of a checkpoint."""
    return checkpoint.read(path)


def randomize(model):
    """Sets random weights in a PyTorch model, scaled so that every part of it affects the logits."""
    with torch.no_grad():
        for number, (name, tensor) in enumerate(model.named_parameters()):
            values = np.random.default_rng(number).standard_normal(tensor.shape)
            scale = (tensor.numel() / tensor.shape[0]) ** -0.5 if tensor.ndim > 1 and tensor.shape[0] > 1 else 0.2
            tensor.copy_(torch.tensor(values * scale + ("norm" in name and name.endswith("weight"))))
    return model
