"""A tiny model with random weights, random images, and comparisons of parameter trees."""

import dataclasses
import functools
from typing import Any

import chex
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ppvit_jax import models
from ppvit_jax.data import Dataset
from ppvit_jax.data.source import ArraySource


def tiny_model(image_size: int = 16, patch_size: int = 4, num_classes: int = 3, **fields: Any) -> models.ViTConfig:
    """Returns the configuration of a Vision Transformer with two layers of width 16."""
    return models.ViTConfig(
        patch_size=patch_size,
        hidden_size=16,
        layers=2,
        heads=2,
        mlp_size=32,
        image_size=image_size,
        num_classes=num_classes,
        **fields,
    )


def compiled(model: models.Model) -> models.Model:
    """Returns the model with its functions compiled, which takes less time than to run them operation by operation."""
    functions = {name: jax.jit(getattr(model, name)) for name in ("init", "init_statistics", "apply", "train")}
    return dataclasses.replace(model, **functions)


# Many tests make parameters of few models. The package itself remembers the last ones alone.
_parameter_shapes = functools.cache(models.parameter_shapes)


def random_params(config: models.ModelConfig, seed: int = 0, dtype: Any = np.float32) -> dict[str, Any]:
    """Returns parameters that are all random, even those that start at zero (head, biases, class token)."""
    random = np.random.default_rng(seed)
    arrays = {}
    for name, shape in _parameter_shapes(config).items():
        fan_in = np.prod(shape[:-1]) if name.endswith("kernel") else 1
        scale = fan_in**-0.5 if name.endswith("kernel") else 0.2
        arrays[name] = (random.standard_normal(shape) * scale + name.endswith("scale")).astype(dtype)
    return unflatten_dict(arrays, sep="/")


def flatten(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by name, such as "embedding/kernel"."""
    return dict(flatten_dict(tree, sep="/"))


def random_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Returns noise, uint8 [count, size, size, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def random_dataset(train: int = 24, test: int = 10, size: int = 16, num_classes: int = 3, seed: int = 0) -> Dataset:
    """Returns a data set of noise images whose mean brightness depends on the class."""
    random = np.random.default_rng(seed)

    def source(count: int) -> ArraySource:
        labels = random.integers(0, num_classes, count).astype(np.int32)
        images = random.integers(0, 80, (count, size, size, 3)) + labels[:, None, None, None] * 80
        return ArraySource(images.astype(np.uint8), labels)

    return Dataset("noise", source(train), source(test), tuple(f"class {i}" for i in range(num_classes)))


def assert_same_tree(actual: Any, expected: Any) -> None:
    """Asserts that two trees are equal bit for bit; flat and nested names are interchangeable."""
    chex.assert_trees_all_equal(flatten(actual), flatten(expected))


def assert_close_tree(actual: Any, expected: Any, tolerance: float) -> None:
    """Asserts that two trees have the same structure and agree to an absolute tolerance."""
    chex.assert_trees_all_close(flatten(actual), flatten(expected), rtol=0, atol=tolerance)
