"""Vision Transformer of Dosovitskiy et al. (arXiv 2010.11929), with Google's parameter names.

The parameter tree has exactly the keys of the published `.npz` files, so that loading a checkpoint is unflattening it.
The names are those of Flax before Linen: `LayerNorm_0`, `MultiHeadDotProductAttention_1`, `LayerNorm_2`, `MlpBlock_3`.
Reference implementation: google-research/vision_transformer.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ppvit_jax.models.attention import choose_attention
from ppvit_jax.models.encoder import Dense, Encoder, Layer
from ppvit_jax.models.family import Family, Stored
from ppvit_jax.models.model import Model, from_linen
from ppvit_jax.models.products import linear
from ppvit_jax.models.target import Target, default_target
from ppvit_jax.models.vit_config import ACTIVATION, EPSILON, SIZES, ViTConfig, check_options, parse_name


def infer_config(stored: Stored) -> ViTConfig:
    """Infers the shape from a checkpoint's arrays; `num_classes` is 0 for a checkpoint without a head.

    Raises:
      UserError: an array that determines the shape is missing or has another rank, or a recorded option is impossible.
    """

    def shape(name: str, rank: int) -> tuple[int, ...]:
        return stored.shape(name, rank, "Vision Transformer in Google's layout")

    arrays = stored.arrays
    patch_size, _, _, hidden_size = shape(FAMILY.patch_kernel, 4)
    blocks = shape(FAMILY.positions, 3)[1] - FAMILY.prefix_tokens
    first = "Transformer/encoderblock_0"
    recorded = {name: stored.options.get(name, FAMILY.options[name]) for name in FAMILY.recorded}
    check_options(recorded["activation"], recorded["epsilon"], f"{stored.where} records")
    return ViTConfig(
        patch_size=patch_size,
        hidden_size=hidden_size,
        layers=stored.count(r"Transformer/encoderblock_(\d+)/"),
        heads=shape(f"{first}/MultiHeadDotProductAttention_1/query/kernel", 3)[1],
        mlp_size=shape(f"{first}/MlpBlock_3/Dense_0/kernel", 2)[1],
        image_size=math.isqrt(max(blocks, 0)) * patch_size,
        num_classes=shape("head/kernel", 2)[1] if "head/kernel" in arrays else 0,
        representation_size=shape("pre_logits/kernel", 2)[1] if "pre_logits/kernel" in arrays else None,
        dtype=stored.dtype,
        activation=str(recorded["activation"]),
        epsilon=float(recorded["epsilon"]),
    )


def _name(config: ViTConfig) -> str:
    shape = (config.hidden_size, config.layers, config.heads, config.mlp_size)
    return next((f"ViT-{name}/{config.patch_size}" for name, size in SIZES.items() if size == shape), "")


def build(config: ViTConfig) -> Model:
    """Builds a Vision Transformer.

    Raises:
      UserError: the attention is unknown, or it does not support the device or the compute dtype.
    """
    target = config.target or default_target()
    choose_attention(config.attention, config.dtype, config.hidden_size // config.heads, target)
    return from_linen(config, _VisionTransformer(config, target), (config.image_size, config.image_size, 3))


class _VisionTransformer(nn.Module):
    config: ViTConfig
    target: Target

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        config = self.config
        batch, height, width, channels = images.shape
        patch, hidden, dtype = config.patch_size, (config.hidden_size,), config.dtype

        def apply(x: jax.Array, layer: Layer) -> jax.Array:
            return linear(x, [layer], dtype, self.target)[0]

        # A convolution whose stride is its size: one matrix product over (row, column, channel) of each patch.
        images = self.target.divide_batch(images)
        patches = images.reshape(batch, height // patch, patch, width // patch, patch, channels)
        patches = patches.swapaxes(2, 3).reshape(-1, patch**2 * channels)
        x = apply(patches, Dense((patch, patch, channels), hidden, name="embedding")())
        class_token = self.param("cls", nn.initializers.zeros, (1, 1, *hidden))
        x = Encoder(config, self.target, name="Transformer")(x.reshape(batch, -1, *hidden), class_token[0, 0])

        if config.representation_size is not None:
            representation = (config.representation_size,)
            x = nn.tanh(apply(x, Dense(hidden, representation, name="pre_logits")()))
        head = Dense(x.shape[1:], (config.num_classes,), kernel_init=nn.initializers.zeros, name="head")
        return apply(x, head()).astype(jnp.promote_types(dtype, jnp.float32))


def _describe(config: ViTConfig) -> dict[str, str]:
    return {
        "shape": f"hidden {config.hidden_size}, {config.layers} layers, {config.heads} heads, MLP {config.mlp_size}",
        "pre_logits": str(config.representation_size or "none"),
        "activation": f"{config.activation}, epsilon {config.epsilon:g}",
    }


FAMILY = Family(
    title="Vision Transformer",
    names="ViT-SIZE/PATCH",
    pattern=r"ViT(?![A-Za-z])(?s:.*)",
    config=ViTConfig,
    build=build,
    # One of the implementations of attention, one of ACTIVATIONS, and the epsilon of the layer normalizations.
    options={"attention": "auto", "activation": ACTIVATION, "epsilon": EPSILON},
    recorded=("activation", "epsilon"),
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
    landmarks=("cls",),
    encoder="Transformer",
    encoder_outputs=("/out/kernel", "/Dense_1/kernel"),
)
