"""Comparison of our models with those of timm and transformers that have the same random weights."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from checkpoints_convert.names import from_google, select, to_google
from checkpoints_convert.tables import names_of
from helpers.pytorch import timm, torch
from helpers.tiny import assert_same_tree
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
    """Returns the arrays of our model, and checks that writing them gives the file's tensors again.

    Args:
      state: the file's tensors by name.
      config: shape of our model.
      program: the name of the family's table, "timm" or "hugging_face".
    """
    names = names_of(config)
    table = getattr(names, program)
    chosen, _ = select(state, names)
    arrays = to_google(chosen, table, heads=config.heads, where="the file")
    assert_same_tree(from_google(arrays, table, layers=config.layers, shape=config), chosen)
    assert models.recognize(arrays) is models.family_of(config)
    return arrays


def apply(arrays: dict[str, np.ndarray], config: models.ViTConfig, images: np.ndarray) -> np.ndarray:
    """Returns our logits of normalized images [n, height, width, 3]; positions of another grid are interpolated.

    A model without a head gets the identity matrix as its head, so that the logits are the pooled features.
    """
    width = config.num_classes
    if "head/kernel" not in arrays:
        arrays = {**arrays, "head/kernel": np.eye(width, dtype=np.float32), "head/bias": np.zeros(width, np.float32)}
    arrays = models.resize_positions(arrays, config)
    shapes = models.parameter_shapes(config)
    unused = tuple(name for name in arrays if name not in shapes)
    assert all(name.startswith(models.unused_layers(config, keep_head=True)) for name in unused), unused
    params = {name: arrays[name] for name in shapes}
    assert {name: array.shape for name, array in params.items()} == shapes
    # Each program runs once, so that it is not worth the time of LLVM's optimizations.
    forward = jax.jit(models.build(config).apply, compiler_options={"xla_backend_optimization_level": 0})
    return np.asarray(forward(unflatten_dict(params, sep="/"), images))


def run(model: Any, images: np.ndarray, **arguments: Any) -> np.ndarray:
    """Returns the logits or the pooled features that a PyTorch model computes for normalized images."""
    with torch.no_grad():
        output = model(torch.as_tensor(images.transpose(0, 3, 1, 2).copy()), **arguments)
    if not torch.is_tensor(output):
        output = output.logits if "logits" in output else output.pooler_output
    return output.numpy()


def of_timm(name: str, **arguments: Any) -> Callable[[int], Any]:
    """Returns a function that makes timm's model for a side of its images, without values in its parameters."""
    return lambda size: timm.create_model(name, img_size=size, device="meta", **arguments).to_empty(device="cpu").eval()


def compare(
    config: models.ViTConfig,
    sizes: tuple[int, ...],
    *,
    theirs: Callable[[int], Any] | None = None,
    transformers: Callable[[], Any] | None = None,
    **arguments: Any,
) -> None:
    """Compares our model with timm's, with that of transformers, or with both, at several sizes of images.

    Models of transformers interpolate positions themselves. timm's models of other sizes get those that we interpolate.

    Args:
      config: shape of our model; 0 classes for the pooled features.
      sizes: sides of the images in pixels; the first one is that of the models' own positions.
      theirs: the result of `of_timm`.
      transformers: makes the model of transformers.
      **arguments: arguments of transformers' model for images of another size.
    """
    if transformers is not None:
        with importlib.import_module("transformers.initialization").no_init_weights():
            model = draw(transformers())
        arrays = read_tensors(file_tensors(model), config, "hugging_face")
    else:
        assert theirs is not None
        model = None
        arrays = read_tensors(file_tensors(draw(theirs(sizes[0]))), config, "timm")
    for size in sizes:
        # Large images are slow.
        images = np.random.default_rng(size).standard_normal((1 if size > 200 else 2, size, size, 3)).astype(np.float32)
        expected = []
        shape = dataclasses.replace(config, image_size=size)
        if model is not None:
            expected.append(run(model, images, **arguments))
        if theirs is not None:
            resized = models.resize_positions(arrays, shape)
            state = from_google(resized, names_of(shape).timm, layers=shape.layers, shape=shape)
            other = theirs(size)
            other.load_state_dict({name: torch.tensor(tensor) for name, tensor in state.items()})
            expected.append(run(other, images))
        shape = dataclasses.replace(shape, num_classes=shape.num_classes or expected[0].shape[1])
        logits = apply(arrays, shape, images)
        assert logits.std() > 0.1
        for values in expected:
            np.testing.assert_allclose(logits, values, rtol=0, atol=1e-4)


def transformers_shape(config):
    """Returns the sizes of a transformer as fields of Hugging Face's configurations."""
    return {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_size,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
    }
