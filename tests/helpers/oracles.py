"""Comparison of our models with those of timm and transformers that have the same random weights."""

import importlib
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from checkpoints_convert.names import select, to_google
from checkpoints_convert.tables import names_of
from helpers.pytorch import torch
from ppvit_jax import models


def draw(model: Any, seed: int = 0) -> Any:
    """Draws every parameter of a PyTorch model at random: biases, tokens and normalizations, too."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            values = torch.randn(tensor.shape, generator=rng)
            is_token = any(word in name for word in ("token", "pos", "probe", "latent", "class_embedding"))
            if tensor.ndim > 1 and not is_token:
                values *= tensor[0].numel() ** -0.5
            else:
                values *= 0.2
                # Scales of normalizations, and the factors of LayerScale.
                values += tensor.ndim == 1 and not name.endswith("bias") and not is_token
            tensor.copy_(values)
    return model.eval()


def file_tensors(model: Any) -> dict[str, np.ndarray]:
    """Returns a model's tensors by their names in files."""
    state = model.state_dict()
    if hasattr(model, "save_pretrained"):
        # `save_pretrained` calls it, too.
        state = importlib.import_module("transformers.core_model_loading").revert_weight_conversion(model, state)
    return {name: tensor.detach().numpy() for name, tensor in state.items()}


def read_tensors(state: dict[str, np.ndarray], config: models.ViTConfig, program: str) -> dict[str, np.ndarray]:
    """Returns the arrays of our model, read by the family's table of "timm" or "hugging_face"."""
    names = names_of(config)
    chosen, _ = select(state, names)
    return to_google(chosen, getattr(names, program), heads=config.heads, where="the file")


def apply(arrays: dict[str, np.ndarray], config: models.ViTConfig, images: np.ndarray) -> np.ndarray:
    """Returns our logits of normalized images [n, height, width, 3]; arrays of another grid are interpolated.

    A model without a head gets the identity matrix as its head, so that the logits are the pooled features.
    """
    if "head/kernel" not in arrays:
        width = config.num_classes
        arrays = {**arrays, "head/kernel": np.eye(width, dtype=np.float32), "head/bias": np.zeros(width, np.float32)}
    arrays = models.resize_positions(arrays, config)
    shapes = models.parameter_shapes(config)
    assert {name: array.shape for name, array in arrays.items() if name in shapes} == shapes
    unused = {name for name in arrays if name not in shapes}
    assert all(name.startswith(models.unused_layers(config, keep_head=True)) for name in unused), unused
    tree = unflatten_dict({name: arrays[name] for name in shapes}, sep="/")
    return np.asarray(jax.jit(models.build(config).apply)(tree, images))


def pixels(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Returns normalized noise, float32 [count, size, size, 3]."""
    return np.random.default_rng(seed).standard_normal((count, size, size, 3)).astype(np.float32)


def torch_images(images: np.ndarray) -> Any:
    """Returns images [n, height, width, 3] as PyTorch takes them, [n, 3, height, width]."""
    return torch.as_tensor(images.transpose(0, 3, 1, 2).copy())


def run(function: Any, images: np.ndarray, **arguments: Any) -> np.ndarray:
    """Returns what a PyTorch model computes for normalized images: its logits, or its pooled features."""
    with torch.no_grad():
        output = function(torch_images(images), **arguments)
    if not torch.is_tensor(output):
        output = output.logits if "logits" in output else output.pooler_output
    return output.numpy()
