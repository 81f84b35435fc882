"""NeuraCrypt's classifier: a one-layer DeepViT (Zhou et al., arXiv 2103.11886) on encoded patches."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ppvit_jax.errors import UserError
from ppvit_jax.models.family import Family
from ppvit_jax.models.layers import pytorch_bias_init, pytorch_kernel_init
from ppvit_jax.models.model import Model, from_linen

_HEAD_SIZE = 64


@dataclasses.dataclass(frozen=True)
class NeuraCryptConfig:
    """Shape of a classifier of the encodings that `ppvit_jax.encryption.neuracrypt.NeuraCrypt` computes.

    Attributes:
      image_size: side of an image in pixels, before it is encoded.
      num_classes: outputs of the head.
      encoding_patch_size: side of an encoded patch in pixels, which is the encryption's block size.
      width: features of an encoded patch, and of the model.
      layers: number of layers.
      heads: attention heads of a layer.
      mlp_ratio: the MLP's hidden size as a multiple of the width.
      dtype: compute dtype; the parameters keep theirs.
    """

    image_size: int
    num_classes: int
    encoding_patch_size: int = 16
    width: int = 2048
    layers: int = 1
    heads: int = 8
    mlp_ratio: int = 2
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.encoding_patch_size < 1 or self.image_size < 1 or self.image_size % self.encoding_patch_size:
            raise UserError(
                f"image size {self.image_size} is not a multiple of the patch size {self.encoding_patch_size}"
            )

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.encoding_patch_size

    @property
    def patches(self) -> int:
        """Number of encoded patches of an image."""
        return (self.image_size // self.encoding_patch_size) ** 2


def build(config: NeuraCryptConfig) -> Model:
    """Builds a classifier of encodings, floating point [batch, patches, width]; the order of patches does not matter.

    A class token precedes the patches, and there is no position embedding. Each layer consists of attention with
    re-attention and an MLP, both residual and with the normalization first. Re-attention mixes the heads' attention
    maps by a learned matrix and normalizes the result over the heads. A layer norm and a linear head on the class token
    give the logits. Training and evaluation compute the same function, without statistics.

    The published description leaves some choices open. We inferred them from the common PyTorch implementations of
    DeepViT: heads have 64 features at any width; query, key and value have no biases; re-attention normalizes by a
    learned layer norm with epsilon 1e-5; GELU is exact; there is no dropout; and the initialization is PyTorch's
    (uniform in +-1/sqrt(inputs); standard normal for the class token and re-attention's matrix).
    """
    return from_linen(config, _Classifier(config), (config.patches, config.width))


def _dense(
    features: int | tuple[int, ...], inputs: int, *, dtype: DTypeLike, name: str, **options: Any
) -> nn.DenseGeneral:
    """Makes a linear layer with PyTorch's initialization."""
    return nn.DenseGeneral(
        features,
        dtype=dtype,
        kernel_init=pytorch_kernel_init,
        bias_init=pytorch_bias_init(inputs),
        name=name,
        **options,
    )


class _ReAttention(nn.Module):
    config: NeuraCryptConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        heads, width, dtype = self.config.heads, self.config.width, jnp.dtype(self.config.dtype)
        query, key, value = (
            _dense((heads, _HEAD_SIZE), width, use_bias=False, dtype=dtype, name=name)(x)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bqhd,bkhd->bqkh", query, key) * _HEAD_SIZE**-0.5
        attention = nn.softmax(scores, axis=2)
        mixing = self.param("mixing", nn.initializers.normal(1.0), (heads, heads), jnp.float32)
        attention = jnp.einsum("bqkh,hg->bqkg", attention, mixing.astype(dtype))
        attention = nn.LayerNorm(epsilon=1e-5, dtype=dtype, use_fast_variance=False, name="norm")(attention)
        mixed = jnp.einsum("bqkg,bkgd->bqgd", attention, value)
        return _dense(width, heads * _HEAD_SIZE, axis=(-2, -1), dtype=dtype, name="out")(mixed)


class _Layer(nn.Module):
    config: NeuraCryptConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width, dtype = self.config.width, jnp.dtype(self.config.dtype)
        hidden = width * self.config.mlp_ratio
        normalized = nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="attention_norm")(x)
        x = x + _ReAttention(self.config, name="attention")(normalized)
        y = nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="mlp_norm")(x)
        y = nn.gelu(_dense(hidden, width, dtype=dtype, name="mlp_in")(y), approximate=False)
        return x + _dense(width, hidden, dtype=dtype, name="mlp_out")(y)


class _Classifier(nn.Module):
    config: NeuraCryptConfig

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        class_token = self.param("class_token", nn.initializers.normal(1.0), (1, 1, config.width), jnp.float32)
        class_tokens = jnp.tile(class_token.astype(dtype), (images.shape[0], 1, 1))
        x = jnp.concatenate([class_tokens, images.astype(dtype)], axis=1)
        for layer in range(config.layers):
            x = _Layer(config, name=f"layer_{layer}")(x)
        x = nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="norm")(x[:, 0])
        logits = _dense(config.num_classes, config.width, dtype=dtype, name="head")(x)
        return logits.astype(jnp.promote_types(dtype, jnp.float32))


FAMILY = Family(
    title="NeuraCrypt classifier",
    names="NeuraCrypt-WIDTH/PATCH",
    pattern=r"NeuraCrypt-(?P<width>\d+)/(?P<encoding_patch_size>\d+)",
    config=NeuraCryptConfig,
    build=build,
    name=lambda config: f"NeuraCrypt-{config.width}/{config.encoding_patch_size}",
    input_shape=lambda config: (config.patches, config.width),
    limits="it takes encodings instead of images",
    block="layer_",
    stem=("class_token",),
    landmarks=("class_token", "layer_0/attention/mixing"),
)
