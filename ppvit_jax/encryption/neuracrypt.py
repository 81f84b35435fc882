"""NeuraCrypt (Yala et al., arXiv 2106.02484): a frozen random network whose weights are the key encodes images."""

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
    """A random network over patches, which NeuraCrypt and Color-NeuraCrypt share.

    A patch is embedded by a linear layer and a ReLU; `depth` times a linear layer, a batch normalization (scale 1,
    offset 0) and a ReLU follow, then a table of positions is added, and a ReLU and a linear layer end it. All are
    1x1 convolutions in the original, so that patches meet in the statistics alone.

    Its secret holds float32 arrays: "embedding", "layer_0" and so on, and "mixer", each a "/kernel" [inputs, outputs]
    and a "/bias" [outputs]; "position" [patches, features]; and where statistics are frozen, "layer_0/mean" and
    "layer_0/variance" [features]. A patch's values are in (row, column, channel) order. Weights are distributed as
    PyTorch initializes them: uniform in +-1/sqrt(inputs), and the table standard normal.

    depth: hidden layers.
    statistics: those that the batch normalization uses. "batch": the mean and variance over the patches of all
      images encoded together, as in the original, whose layer keeps no running statistics; an encoding then depends
      on its batch, and an image under `jax.vmap` is a batch by itself. "frozen": those of a reference batch, so that
      an encoding depends on its image alone. The reference is our choice: 16 images that the key gives, half of
      them noise, half of them 8x8 random colors, enlarged, because most patches of a photograph are smooth.
    """

    depth: int = 4
    statistics: str = "frozen"
    encodes = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "statistics", self.statistics, ("frozen", "batch"))
        if self.depth < 0:
            raise UserError(f"encryption {self.name}: depth is {self.depth}, give at least 0")

    def undo(self, secret: Secret) -> NoReturn:
        """Raises UserError: nothing undoes the encoding."""
        raise UserError(f"encryption {self.spec} has no inverse: its random network loses a part of every image")

    def absorb(self, randomness: Randomness, *, height: int, width: int) -> NoReturn:
        """Raises UserError: the encoding is no permutation."""
        raise UserError(
            f"a model cannot be adapted to {self.spec}: its random network is not linear, and a patch embedding is; "
            "train on its encodings"
        )

    def _derive(self, randomness: Randomness, reference: np.ndarray, features: int, prefix: str = "") -> Secret:
        """Derives one network's secret; `reference` is uint8 [images, height, width, channels]."""
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
        """Computes the features before the positions, and the statistics: the batch's where the secret holds none."""
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
    """NeuraCrypt (Yala et al., arXiv 2106.02484), as its code computes it: `RandomEncoder` in a random patch order.

    The code ends with a linear layer, where its description has a ReLU. At width 2048, depth 4 and blocks of 16, the
    weights (with the normalization's constants) are 22.97 million for images of 224x224, 23.10 for 256x256.
    Broken by Carlini et al. (arXiv 2108.07256).

    width: features of an encoded patch.
    reorder: put each image's patches in an order of its own, from the image's number; its key is "order_key",
      uint32 [8], in the secret (see `chacha.permutations`). The original draws a new one each time.
    """

    width: int = 2048
    reorder: bool = True
    name = "neuracrypt"
    title = "NeuraCrypt"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1:
            raise UserError(f"encryption {self.name}: width is {self.width}, give at least 1")

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
          UserError: no numbers where patches are reordered, or not one for every image; or images of a size that
            the secret is not for.
        """
        xp = images.__array_namespace__()
        if not self.reorder:
            return self._encode(images, secret)
        checked = self.check_numbers(images, numbers)
        tokens = self._encode(images, secret)
        order = chacha.permutations(xp.asarray(secret["order_key"]), checked, tokens.shape[-2])
        return xp.take_along_axis(tokens, order[..., None], axis=-2)


def reference_images(randomness: Randomness, method: str, height: int, width: int) -> np.ndarray:
    """Derives the batch whose statistics are frozen, uint8 [16, height, width, 3], whatever is encoded later."""
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
    # An accelerator's default product keeps fewer bits: encodings made there and by numpy would differ.
    return (x @ kernel if xp is np else xp.matmul(x, kernel, precision="highest")) + bias


def _mean(x: Any) -> Any:
    # First over the patches of an image, then over images: long float32 sums lose bits.
    return x.mean(axis=-2).reshape(-1, x.shape[-1]).mean(axis=0)


def _uniform(randomness: Randomness, label: str, shape: tuple[int, ...], bound: float) -> np.ndarray:
    unit = (randomness.words(label, math.prod(shape)) >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)
    return ((2 * unit - 1) * np.float32(bound)).reshape(shape)


def _normal(randomness: Randomness, label: str, shape: tuple[int, ...]) -> np.ndarray:
    # Box and Muller's method, in float64 so that the rounded values hardly depend on the mathematics library.
    count = math.prod(shape)
    words = randomness.words(label, count + count % 2).reshape(-1, 2).astype(np.float64)
    radius = np.sqrt(-2 * np.log((words[:, 0] + 1) * 2.0**-32))
    angle = 2 * np.pi * words[:, 1] * 2.0**-32
    values = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return values.reshape(-1)[:count].astype(np.float32).reshape(shape)
