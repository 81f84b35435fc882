"""ResNet-18 of He et al. (arXiv 1512.03385), with the stem for ImageNet or the usual one for CIFAR."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ppvit_jax.errors import UserError
from ppvit_jax.models.family import Family
from ppvit_jax.models.layers import BatchNorm
from ppvit_jax.models.model import Model, from_linen

STEMS = ("cifar", "imagenet")
# Width and stride of the four stages, which have two blocks each: table 1 of the paper.
_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
_BLOCKS = 2


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """Shape of a ResNet-18.

    Attributes:
      stem: "imagenet", a 7x7 convolution of stride 2 and a 3x3 max pooling of stride 2; or "cifar", one 3x3 convolution
        of stride 1.
      image_size: side of an image in pixels.
      num_classes: outputs of the head.
      dtype: compute dtype; the parameters keep theirs.
    """

    stem: str
    image_size: int
    num_classes: int
    dtype: str = "float32"

    @property
    def patch_size(self) -> int:
        """Always 0: a convolutional network has no patches."""
        return 0


def build(config: ResNetConfig) -> Model:
    """Builds a ResNet-18.

    Its parameters are "stem", "stem_norm", "layer1_0" to "layer4_1" and "head". Each layer has "conv1", "norm1",
    "conv2" and "norm2", and also "shortcut" and "shortcut_norm" if the shape changes.

    Raises:
      UserError: the stem is unknown.
    """
    if config.stem not in STEMS:
        raise UserError(f"unknown stem {config.stem!r} of the ResNet: use one of {', '.join(STEMS)}")
    return from_linen(config, _ResNet(config), (config.image_size, config.image_size, 3))


def _convolution(features: int, size: int, stride: int, dtype: DTypeLike, name: str) -> nn.Conv:
    """Creates a convolution with symmetric padding, as in PyTorch.

    Flax's "SAME" pads one side more if the stride is 2.
    """
    return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        name=name,
    )


class _Block(nn.Module):
    features: int
    stride: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = _convolution(self.features, 3, self.stride, self.dtype, "conv1")(x)
        y = nn.relu(BatchNorm(dtype=self.dtype, name="norm1")(y, train))
        y = _convolution(self.features, 3, 1, self.dtype, "conv2")(y)
        y = BatchNorm(dtype=self.dtype, name="norm2")(y, train)
        if x.shape != y.shape:
            x = _convolution(self.features, 1, self.stride, self.dtype, "shortcut")(x)
            x = BatchNorm(dtype=self.dtype, name="shortcut_norm")(x, train)
        return nn.relu(x + y)


class _ResNet(nn.Module):
    config: ResNetConfig

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        dtype = jnp.dtype(self.config.dtype)
        imagenet = self.config.stem == "imagenet"
        size, stride = (7, 2) if imagenet else (3, 1)
        x = _convolution(_STAGES[0][0], size, stride, dtype, "stem")(images)
        x = nn.relu(BatchNorm(dtype=dtype, name="stem_norm")(x, train))
        if imagenet:
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))  # pyright: ignore[reportArgumentType]
        for stage, (features, stride) in enumerate(_STAGES, start=1):
            for i in range(_BLOCKS):
                x = _Block(features, stride if i == 0 else 1, dtype, name=f"layer{stage}_{i}")(x, train)
        logits = nn.Dense(self.config.num_classes, dtype=dtype, name="head")(x.mean((1, 2)))
        return logits.astype(jnp.promote_types(dtype, jnp.float32))


FAMILY = Family(
    title="ResNet",
    names="ResNet-18",
    pattern="ResNet-18",
    config=ResNetConfig,
    build=build,
    name=lambda config: "ResNet-18",
    options={"stem": "cifar"},
    limits="its convolutions reach across the borders of blocks",
    landmarks=("stem_norm/scale", "layer1_0/conv1/kernel"),
)
