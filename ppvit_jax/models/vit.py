"""Vision Transformer of Dosovitskiy et al. (arXiv 2010.11929), with Google's parameter names.

The parameter tree has exactly the keys of the published `.npz` files, so that loading a checkpoint is unflattening it.
The names are those of Flax before Linen: `LayerNorm_0`, `MultiHeadDotProductAttention_1`, `LayerNorm_2`, `MlpBlock_3`.
Reference implementation: google-research/vision_transformer.
"""

from ppvit_jax.models.family import Family, Stored
from ppvit_jax.models.transformer import BLOCK, STEM, build, describe, infer_fields, size_name
from ppvit_jax.models.vit_config import ACTIVATION, EPSILON, SIZES, ViTConfig, parse_name


def infer_config(stored: Stored) -> ViTConfig:
    """Infers the shape from a checkpoint's arrays; `num_classes` is 0 for a checkpoint without a head.

    Raises:
      UserError: an array that determines the shape is missing or has another rank, or a recorded option is impossible.
    """
    width = stored.shape("pre_logits/kernel", 2, FAMILY.title)[1] if "pre_logits/kernel" in stored.arrays else None
    fields = infer_fields(stored, FAMILY, "Vision Transformer in Google's layout")
    return ViTConfig(**fields, representation_size=width)


def _name(config: ViTConfig) -> str:
    size = size_name(config, SIZES)
    return f"ViT-{size}" if size else ""


def _describe(config: ViTConfig) -> dict[str, str]:
    return describe(config) | {"pre_logits": str(config.representation_size or "none")}


FAMILY = Family(
    title="Vision Transformer",
    names="ViT-SIZE/PATCH",
    pattern=r"ViT(?![A-Za-z])(?s:.*)",
    config=ViTConfig,
    build=build,
    # One of the implementations of attention, one of ACTIVATIONS, the epsilon of the layer normalizations, and one of
    # POOLS.
    options={"attention": "auto", "activation": ACTIVATION, "epsilon": EPSILON, "pool": ""},
    recorded=("activation", "epsilon", "pool"),
    parse=parse_name,
    name=_name,
    infer=infer_config,
    describe=_describe,
    patch_kernel="embedding/kernel",
    patch_bias="embedding/bias",
    positions="Transformer/posembed_input/pos_embedding",
    # The class token.
    prefix_tokens=1,
    head="head",
    optional=("pre_logits",),
    block=BLOCK,
    stem=STEM,
    landmarks=("cls",),
    encoder="Transformer",
    encoder_outputs=("/out/kernel", "/Dense_1/kernel"),
)
