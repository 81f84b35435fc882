"""NeuraCrypt (Yala et al., arXiv 2106.02484): encodes images by a frozen random network whose weights are the key."""

import dataclasses
import math
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from ppvit_jax.encryption import chacha
from ppvit_jax.encryption.method import Encryption, Randomness, Secret, check_choice
from ppvit_jax.encryption.permutations import Array, check_size, split_blocks
from ppvit_jax.errors import UserError

# The constant of torch.nn.BatchNorm2d.
_EPSILON = 1e-5
_REFERENCE_IMAGES = 16
_REFERENCE_GRID = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomEncoder(Encryption):
    """Random network over patches, which NeuraCrypt and Color-NeuraCrypt share.

    A linear layer and a ReLU embed each patch. Then come `depth` hidden layers, each a linear layer, a batch
    normalization (scale 1, offset 0) and a ReLU. A position embedding is added, and a ReLU and a linear layer follow.
    In the original all linear layers are 1x1 convolutions, so patches interact only through the batch statistics.

    The secret holds float32 arrays. Each of "embedding", "layer_0" and so on, and "mixer" has a "/kernel"
    [inputs, outputs] and a "/bias" [outputs]. "position" is [patches, features]. Frozen statistics are "layer_0/mean"
    and "layer_0/variance" [features], and so on. A patch's values are in (row, column, channel) order. The weights
    have the distributions of PyTorch's initialization: uniform in +-1/sqrt(inputs), and standard normal for the
    position embedding.

    Attributes:
      depth: number of hidden layers.
      statistics: source of the batch normalization's statistics. "batch" uses the mean and variance over the patches
        of all images encoded together, as in the original, whose layer keeps no running statistics. An encoding then
        depends on its batch, and under `jax.vmap` each image is a batch. "frozen" uses the statistics of a reference
        batch, so that an encoding depends only on its image. The reference is our choice: 16 images drawn from the
        key, of which 8 are noise and 8 are 8x8 random colors, enlarged (most patches of a photograph are smooth).
    """

    depth: int = 4
    statistics: str = "frozen"
    encodes = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "statistics", self.statistics, ("frozen", "batch"))
        if self.depth < 0:
            raise UserError(f"encryption {self.name}: depth is {self.depth}: give at least 0")

    @property
    def depends_on_batch(self) -> bool:
        return self.statistics == "batch"

    def undo(self, secret: Secret) -> NoReturn:
        """Raises UserError: the encoding has no inverse."""
        raise UserError(
            f"encryption {self.spec} has no inverse: its random network loses information about every image"
        )

    def absorb(self, randomness: Randomness, *, height: int, width: int) -> NoReturn:
        """Raises UserError: the encoding is not a permutation."""
        raise UserError(
            f"a model cannot be adapted to {self.spec}: its random network is not linear, but a patch embedding is; "
            "train a model on the encodings instead"
        )

    def _derive(self, randomness: Randomness, reference: np.ndarray, features: int, prefix: str = "") -> Secret:
        """Derives the secret of one network; `reference` is uint8 [images, height, width, channels]."""
        patches, values = split_blocks(reference, self.block_size).shape[-2:]
        secret = {}
        for layer, inputs in zip(self._layers(prefix), (values, *[features] * (self.depth + 1)), strict=True):
            for name, shape in ((f"{layer}/kernel", (inputs, features)), (f"{layer}/bias", (features,))):
                secret[name] = _uniform(randomness, f"{self.name}/{name}", shape, inputs**-0.5)
        position = f"{prefix}position"
        secret[position] = _normal(randomness, f"{self.name}/{position}", (patches, features))
        if self.statistics == "frozen":
            secret |= self._hidden(reference, secret, prefix)[1]
        return secret

    def _encode(self, images: Array, secret: Secret, prefix: str = "") -> Array:
        """Encodes uint8 [..., height, width, channels] as float32 [..., patches, features]."""
        xp = images.__array_namespace__()
        hidden, _ = self._hidden(images, secret, prefix)
        position = xp.asarray(secret[f"{prefix}position"])
        if hidden.shape[-2] != position.shape[0]:
            raise UserError(
                f"images of {hidden.shape[-2]} blocks do not fit a secret for {position.shape[0]}: "
                "derive it for their size"
            )
        return _linear(xp.maximum(hidden + position, 0), secret, f"{prefix}mixer")

    def _hidden(self, images: Array, secret: Secret, prefix: str) -> tuple[Array, Secret]:
        """Returns the features before the position embedding, and the statistics.

        The statistics are the batch's if the secret holds none.
        """
        xp = images.__array_namespace__()
        scaled: Any = images.astype(xp.float32) / 127.5 - 1
        embedding, *layers, _ = self._layers(prefix)
        x = xp.maximum(_linear(split_blocks(scaled, self.block_size), secret, embedding), 0)
        statistics = {}
        for layer in layers:
            x = _linear(x, secret, layer)
            names = f"{layer}/mean", f"{layer}/variance"
            if names[0] in secret:
                mean, variance = (xp.asarray(secret[name]) for name in names)
            else:
                mean = _mean(x)
                variance = _mean((x - mean) ** 2)
            statistics |= dict(zip(names, (mean, variance), strict=True))
            x = xp.maximum((x - mean) / xp.sqrt(variance + _EPSILON), 0)
        return x, statistics

    def _layers(self, prefix: str) -> list[str]:
        return [f"{prefix}{layer}" for layer in ("embedding", *(f"layer_{i}" for i in range(self.depth)), "mixer")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeuraCrypt(RandomEncoder):
    """NeuraCrypt (Yala et al., arXiv 2106.02484) as its code computes it: `RandomEncoder` and a random patch order.

    The code ends with a linear layer, where the paper describes a ReLU. At width 2048, depth 4 and blocks of 16, the
    network has 22.97 million weights for images of 224x224 and 23.10 million for 256x256, counting the constants of
    the normalization. Carlini et al. broke the method (arXiv 2108.07256).

    Attributes:
      width: features of an encoded patch.
      reorder: True permutes the patches of each image by the image's number, under "order_key", uint32 [8], in the
        secret (see `chacha.permutations`). The original draws a new order each time.
    """

    width: int = 2048
    reorder: bool = True
    name = "neuracrypt"
    title = "NeuraCrypt"
    moves_blocks = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1:
            raise UserError(f"encryption {self.name}: width is {self.width}: give at least 1")

    @property
    def per_image(self) -> bool:
        return self.reorder

    def derive(self, randomness: Randomness, *, height: int, width: int) -> Secret:
        check_size(height, width, self.block_size)
        secret = self._derive(randomness, reference_images(randomness, self.name, height, width), self.width)
        if self.reorder:
            secret["order_key"] = randomness.words(f"{self.name}/order", 8)
        return secret

    def encrypt(self, images: Array, secret: Secret, numbers: ArrayLike | None = None) -> Array:
        """Encodes images, uint8 [..., height, width, 3], as float32 [..., patches, width]; see `Encryption`.

        Raises:
          UserError: patches are reordered and there is not one number for every image, or the secret is for another
            image size.
        """
        xp = images.__array_namespace__()
        if not self.reorder:
            return self._encode(images, secret)
        checked = self.check_numbers(images, numbers)
        tokens = self._encode(images, secret)
        order = chacha.permutations(xp.asarray(secret["order_key"]), checked, tokens.shape[-2])
        return xp.take_along_axis(tokens, order[..., None], axis=-2)


def reference_images(randomness: Randomness, method: str, height: int, width: int) -> np.ndarray:
    """Derives the batch whose statistics are frozen: uint8 [16, height, width, 3]. It depends on the key alone."""
    half = _REFERENCE_IMAGES // 2
    noise_shape, coarse_shape = (half, height, width, 3), (half, _REFERENCE_GRID, _REFERENCE_GRID, 3)
    count = math.prod(noise_shape)
    words = randomness.words(f"{method}/reference", (count + math.prod(coarse_shape)) // 4)
    stream = words.astype("<u4").view(np.uint8)
    noise, coarse = stream[:count].reshape(noise_shape), stream[count:].reshape(coarse_shape)
    rows, columns = (np.arange(side) * _REFERENCE_GRID // side for side in (height, width))
    return np.concatenate([noise, coarse[:, rows][:, :, columns]])


def _linear(x: Array, secret: Secret, layer: str) -> Array:
    xp = x.__array_namespace__()
    kernel, bias = xp.asarray(secret[f"{layer}/kernel"]), xp.asarray(secret[f"{layer}/bias"])
    # By default, accelerators multiply at lower precision: their encodings would differ from numpy's.
    return (x @ kernel if xp is np else xp.matmul(x, kernel, precision="highest")) + bias


def _mean(x: Any) -> Any:
    # Average over the patches of an image first, then over images: long float32 sums lose precision.
    return x.mean(axis=-2).reshape(-1, x.shape[-1]).mean(axis=0)


def _uniform(randomness: Randomness, label: str, shape: tuple[int, ...], bound: float) -> np.ndarray:
    unit = (randomness.words(label, math.prod(shape)) >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)
    return ((2 * unit - 1) * np.float32(bound)).reshape(shape)


def _normal(randomness: Randomness, label: str, shape: tuple[int, ...]) -> np.ndarray:
    # Box-Muller transform, in float64 so that the rounded values hardly depend on the math library.
    count = math.prod(shape)
    words = randomness.words(label, count + count % 2).reshape(-1, 2).astype(np.float64)
    radius = np.sqrt(-2 * np.log((words[:, 0] + 1) * 2.0**-32))
    angle = 2 * np.pi * words[:, 1] * 2.0**-32
    values = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return values.reshape(-1)[:count].astype(np.float32).reshape(shape)
