"""All families of models under one name and one `build`."""

import functools
import re
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from ppvit_jax.errors import UserError
from ppvit_jax.models import convmixer, neuracrypt, pyramidnet, resnet, vit
from ppvit_jax.models.model import Model, ModelConfig

# What a name leaves open, with what it is otherwise; `config.model_options`.
OPTIONS = {
    # ViT: "xla", or on a CUDA device in bfloat16 "cudnn".
    "attention": "xla",
    # ConvMixer: sides of a patch in pixels and of its convolutions in patches.
    "patch_size": 2,
    "kernel_size": 5,
    # ConvMixer: a learnt matrix over the patches, "none", "free", "softmax" or "sinkhorn".
    "adaptive_matrix": "none",
    # ResNet: "cifar" or "imagenet".
    "stem": "cifar",
    # PyramidNet: what comes before it, "none", "le", "le-tanaka" or "ele".
    "adaptation_network": "none",
}
_NAMES = "ViT-SIZE/PATCH, ConvMixer-WIDTH/DEPTH, ResNet-18, PyramidNet-DEPTH/ALPHA or NeuraCrypt-WIDTH/PATCH"
_BUILDERS: dict[type, Any] = {
    vit.ViTConfig: vit.build,
    convmixer.ConvMixerConfig: convmixer.build,
    resnet.ResNetConfig: resnet.build,
    pyramidnet.PyramidNetConfig: pyramidnet.build,
    neuracrypt.NeuraCryptConfig: neuracrypt.build,
}


def parse_name(
    name: str,
    *,
    image_size: int,
    num_classes: int,
    representation_size: int | None = None,
    dtype: str = "float32",
    options: dict[str, Any] | None = None,
) -> Any:
    """Reads a model's name.

    Args:
      name: "ViT-B/16" (or "ViT-B_16"); "ConvMixer-256/8", width and depth; "ResNet-18"; "PyramidNet-110/270", depth
        and widening, with ShakeDrop; "NeuraCrypt-2048/16", the classifier of encodings of this width and patch.
      image_size: side of an image in pixels.
      num_classes: outputs of the head.
      representation_size: of a ViT; see `ViTConfig`.
      dtype: the compute dtype.
      options: those of OPTIONS that differ.

    Returns:
      The configuration of one family.

    Raises:
      UserError: an unknown name or option, or sizes that do not fit.
    """
    chosen = OPTIONS | (options or {})
    if unknown := sorted(chosen.keys() - OPTIONS.keys()):
        raise UserError(f"unknown model option {', '.join(unknown)}: use one of {', '.join(OPTIONS)}")
    shape: dict[str, Any] = {"image_size": image_size, "num_classes": num_classes, "dtype": dtype}
    family = re.match(r"[A-Za-z]*", name)
    numbers = [int(number) for number in re.findall(r"\d+", name)]
    if family and family[0] == "ViT":
        return vit.parse_name(name, representation_size=representation_size, attention=chosen["attention"], **shape)
    if 0 in numbers:
        raise UserError(f"unknown model {name!r}: its numbers begin at 1")
    if re.fullmatch(r"ConvMixer-\d+/\d+", name):
        return convmixer.ConvMixerConfig(
            hidden_size=numbers[0],
            depth=numbers[1],
            patch_size=chosen["patch_size"],
            kernel_size=chosen["kernel_size"],
            adaptive_matrix=chosen["adaptive_matrix"],
            **shape,
        )
    if name == "ResNet-18":
        return resnet.ResNetConfig(stem=chosen["stem"], **shape)
    if re.fullmatch(r"PyramidNet-\d+/\d+", name):
        network = chosen["adaptation_network"]
        return pyramidnet.PyramidNetConfig(depth=numbers[0], alpha=numbers[1], adaptation_network=network, **shape)
    if re.fullmatch(r"NeuraCrypt-\d+/\d+", name):
        return neuracrypt.NeuraCryptConfig(width=numbers[0], encoding_patch_size=numbers[1], **shape)
    raise UserError(f"unknown model {name!r}: use {_NAMES}, e.g. ViT-B/16")


def build(config: ModelConfig) -> Model:
    """The functions of a model of any family.

    Raises:
      UserError: a shape that the family cannot have.
    """
    return _BUILDERS[type(config)](config)


@functools.lru_cache(maxsize=32)
def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's parameters, by name ("Transformer/encoder_norm/bias").

    Raises:
      UserError: see `build`.
    """
    # Where float64 is not enabled, JAX would warn.
    with jax.enable_x64(config.dtype == "float64"):
        tree: dict[str, Any] = flatten_dict(jax.eval_shape(build(config).init, jax.random.key(0)), sep="/")
    return {name: leaf.shape for name, leaf in tree.items()}


def input_shape(config: ModelConfig) -> tuple[int, ...]:
    """Of one example: an image [image_size, image_size, 3], or for NeuraCrypt's classifier its encoding."""
    if isinstance(config, neuracrypt.NeuraCryptConfig):
        return config.patches, config.width
    return config.image_size, config.image_size, 3
