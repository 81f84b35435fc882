"""RandAugment on the device (Cubuk et al. 2019, arXiv 1909.13719), with torchvision's operations and magnitudes.

The reference is torchvision.transforms.RandAugment. The arithmetic is in integers, or in float32 with a small nudge
past a rounding boundary where exact results would lie on one. Pixels therefore do not depend on whether float64 is
enabled in JAX nor, except in rare cases, on the device. torchvision's rounding errors put some of these results on the
other side of the boundary: one pixel further, or one gray level lower.
"""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np

OPERATIONS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
BINS = 31
_SIGNED = OPERATIONS[1:10]
_INDEX = {name: index for index, name in enumerate(OPERATIONS)}
_NUDGE = 2.0**-12  # above float32's rounding errors here, below anything visible


def rand_augment(images: jax.Array, rng: jax.Array, *, operations: int = 2, magnitude: int = 12) -> jax.Array:
    """Applies random operations, drawn uniformly and independently, to each image in turn.

    Geometric operations sample the nearest pixel and fill with zeros. The whole batch is processed at once: for each
    operation, every image passes through one resampling, one blend and one tone curve, and keeps one of the results.

    Args:
      images: uint8 [batch, height, width, 3].
      rng: random key.
      operations: number of operations per image.
      magnitude: strength of the operations, a bin from 0 to 30; see `magnitudes`.

    Returns:
      uint8 [batch, height, width, 3].
    """
    chex.assert_shape(images, (None, None, None, 3))
    chex.assert_type(images, jnp.uint8)
    batch, height, width, _ = images.shape
    index_rng, sign_rng = jax.random.split(rng)
    # Without explicit types, the draws would depend on whether float64 is enabled in JAX.
    indices = jax.random.randint(index_rng, (operations, batch), 0, len(OPERATIONS), jnp.int32)
    negative = jax.random.randint(sign_rng, (operations, batch), 0, 2, jnp.int32) == 1
    table = jnp.asarray(magnitudes(height, width, magnitude))
    signed = jnp.asarray([name in _SIGNED for name in OPERATIONS])
    values = jnp.where(negative & signed[indices], -table[indices], table[indices])

    def step(images: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return jax.vmap(apply_operation)(images, *drawn), None

    return jax.lax.scan(step, images, (indices, values))[0]


def magnitudes(height: int, width: int, magnitude: int) -> np.ndarray:
    """Returns the magnitude that torchvision's RandAugment gives each operation, before the sign.

    Args:
      height, width: sides of an image in pixels.
      magnitude: a bin from 0 to 30.

    Returns:
      float32 [14], in the order of OPERATIONS. Shears are tangents, translations are in pixels, the rotation is in
      degrees counterclockwise, blends are the factor's distance from 1, Posterize is the number of bits kept, and
      Solarize is its threshold. The three operations without a magnitude have 0.

    Raises:
      ValueError: the bin is out of range.
    """
    if not 0 <= magnitude < BINS:
        raise ValueError(f"magnitude is {magnitude}, not in 0 to {BINS - 1}")
    share = magnitude / (BINS - 1)
    move = 150 / 331 * share
    bits = 8 - round(4 * share)
    values = [0, 0.3 * share, 0.3 * share, move * width, move * height, 30 * share]
    return np.array([*values, *[0.9 * share] * 4, bits, 255 - 255 * share, 0, 0], np.float32)


def apply_operation(image: jax.Array, operation: jax.Array | int, value: jax.Array | float) -> jax.Array:
    """Applies one operation to one image, as torchvision does to a uint8 tensor.

    Args:
      image: uint8 [height, width, 3].
      operation: int32 scalar, an index of OPERATIONS.
      value: float32 scalar, the magnitude with its sign, in the units of `magnitudes`.

    Returns:
      uint8 [height, width, 3].
    """
    chex.assert_shape(image, (None, None, 3))
    chex.assert_type(image, jnp.uint8)
    operation, value = jnp.asarray(operation, jnp.int32), jnp.asarray(value, jnp.float32)
    moved = _move(image, operation, value)
    blended = _blend(image, operation, value)
    toned = _tone(image, operation, value)
    result = jnp.where(operation < _INDEX["Posterize"], blended, toned)
    return jnp.where(operation < _INDEX["Brightness"], moved, result)


def _move(image: jax.Array, operation: jax.Array, value: jax.Array) -> jax.Array:
    height, width, _ = image.shape

    def only(name: str) -> jax.Array:
        return jnp.where(operation == _INDEX[name], value, 0)

    rows = jnp.arange(height, dtype=jnp.float32)[:, None]
    columns = jnp.arange(width, dtype=jnp.float32)[None, :]
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    y, x = rows - middle_row, columns - middle_column
    angle = only("Rotate") * (math.pi / 180)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    # Shears keep the image's upper left corner in place; the rotation keeps its center.
    source_y = sine * x + cosine * y + only("ShearY") * (columns + 0.5) - jnp.trunc(only("TranslateY")) + middle_row
    source_x = cosine * x - sine * y + only("ShearX") * (rows + 0.5) - jnp.trunc(only("TranslateX")) + middle_column
    row, column = (jnp.floor(source + (0.5 + _NUDGE)).astype(jnp.int32) for source in (source_y, source_x))
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    sampled = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    return jnp.where(inside[:, :, None], sampled, 0)


def _blend(image: jax.Array, operation: jax.Array, value: jax.Array) -> jax.Array:
    whole = image.astype(jnp.int32)
    gray = (whole @ jnp.array([2989, 5870, 1140], jnp.int32))[:, :, None] // 10000
    mean = jnp.sum(gray, dtype=jnp.int32).astype(jnp.float32) / gray.size
    other = jnp.where(operation == _INDEX["Color"], gray, _smooth(whole)).astype(jnp.float32)
    other = jnp.where(operation == _INDEX["Contrast"], mean, other)
    other = jnp.where(operation == _INDEX["Brightness"], 0, other)
    result = (1 + value) * image.astype(jnp.float32) - value * other
    return jnp.clip(jnp.floor(result + _NUDGE), 0, 255).astype(jnp.uint8)


def _smooth(image: jax.Array) -> jax.Array:
    """Computes the rounded mean over 3 x 3 pixels, with the middle one counted five times; the border stays."""
    columns = image[:, :-2] + image[:, 1:-1] + image[:, 2:]
    total = columns[:-2] + columns[1:-1] + columns[2:] + 4 * image[1:-1, 1:-1]
    return image.at[1:-1, 1:-1].set((total + 6) // 13)


def _tone(image: jax.Array, operation: jax.Array, value: jax.Array) -> jax.Array:
    whole = image.astype(jnp.int32)
    dropped = jnp.clip(8 - value.astype(jnp.int32), 0, 8)
    posterized = (whole >> dropped) << dropped
    solarized = jnp.where(whole >= value, 255 - whole, whole)
    lowest = jnp.min(whole, (0, 1))
    span = jnp.max(whole, (0, 1)) - lowest
    # torchvision's rounding errors make some integer results smaller by one, such as 255 at the highest value.
    stretched = jnp.where(span > 0, (whole - lowest) * 255 // jnp.maximum(span, 1), whole)
    result = jnp.where(operation == _INDEX["Posterize"], posterized, solarized)
    result = jnp.where(operation == _INDEX["AutoContrast"], stretched, result)
    return jnp.where(operation == _INDEX["Equalize"], _equalize(image), result.astype(jnp.uint8))


def _equalize(image: jax.Array) -> jax.Array:
    height, width, _ = image.shape

    def curve(channel: jax.Array) -> jax.Array:
        counts = jnp.zeros(256, jnp.int32).at[channel.ravel()].add(1)
        below = jnp.cumsum(counts, dtype=jnp.int32) - counts
        step = (height * width - counts[jnp.max(channel)]) // 255
        equal = jnp.clip((below + step // 2) // jnp.maximum(step, 1), 0, 255)
        return jnp.where(step > 0, equal, jnp.arange(256, dtype=jnp.int32)).astype(jnp.uint8)[channel]

    return jax.vmap(curve, 2, 2)(image)
