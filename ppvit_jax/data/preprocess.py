"""Device-side preprocessing: augmentation and resizing of uint8 images, and normalization.

`preprocess` returns rounded uint8 at the model's size, before encryption, so that encryption on the device
and offline (to PNG) agree bit for bit.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ppvit_jax.data.augmentation import AUGMENTATIONS
from ppvit_jax.data.rand_augment import rand_augment

_PADDING = 8  # crops move by up to 1/8 of the side: 4 pixels of CIFAR's 32, as usual there
_AREA = (0.35, 1.0)
_ASPECT = (3 / 4, 4 / 3)


def preprocess(
    images: jax.Array, image_size: int, augmentation: str = "none", rng: jax.Array | None = None
) -> jax.Array:
    """Augments and resizes images.

    Args:
      images: uint8 [batch, height, width, 3].
      image_size: side of the result.
      augmentation: "none"; "flip" (horizontal, probability 1/2); "crop" (zero-padding by 1/8 of the side, then
        a random window of the original size); "flip+crop"; "flip+crop+rand" (then RandAugment, two operations of
        magnitude 12); "random_resized_crop" (Inception's, area 0.35 to 1, aspect 3/4 to 4/3, and a flip).
      rng: a key, needed unless the augmentation is "none".

    Returns:
      uint8 [batch, image_size, image_size, 3]: bilinear with antialiasing, rounded. Images of that size
      already come back unchanged, bit for bit.

    Raises:
      ValueError: an unknown augmentation.
    """
    chex.assert_shape(images, (None, None, None, 3))
    chex.assert_type(images, jnp.uint8)
    if augmentation not in AUGMENTATIONS:
        raise ValueError(f"augmentation is {augmentation!r}, not one of {AUGMENTATIONS}")
    batch, height, width, channels = images.shape
    if augmentation == "random_resized_crop":
        assert rng is not None
        flip_rng, crop_rng = jax.random.split(rng)
        images = _flip(images, flip_rng)
        keys = jax.random.split(crop_rng, batch)
        resized = jax.vmap(_random_resized_crop, (0, 0, None))(images, keys, image_size)
        return _round(resized)
    if augmentation != "none":
        assert rng is not None
        flip_rng, crop_rng = jax.random.split(rng)
        if "flip" in augmentation:
            images = _flip(images, flip_rng)
        if "crop" in augmentation:
            images = _crop(images, crop_rng)
        if "rand" in augmentation:
            images = rand_augment(images, jax.random.fold_in(rng, 1))
    if (height, width) == (image_size, image_size):
        return images
    shape = (batch, image_size, image_size, channels)
    # Not jax.image.resize, whose weights, and so a few pixels, depend on whether JAX's float64 is enabled.
    scale = jnp.array([image_size / height, image_size / width], jnp.float32)
    start = jnp.zeros(2, jnp.float32)
    images = images.astype(jnp.float32)
    return _round(jax.image.scale_and_translate(images, shape, (1, 2), scale, start, "bilinear", antialias=True))


def normalize_images(
    images: jax.Array | np.ndarray, mean: Sequence[float], std: Sequence[float], dtype: DTypeLike
) -> jax.Array:
    """Computes (x / 255 - mean) / std; with mean and std 0.5 this is x / 127.5 - 1.

    Args:
      images: [..., 3], uint8 or encrypted values of that range.
      mean: one number a channel, in units of the full range.
      std: likewise.
      dtype: floating point type of the result; the arithmetic is in at least float32.

    Returns:
      dtype [..., 3].
    """
    chex.assert_axis_dimension(images, -1, 3)
    precise = jnp.promote_types(dtype, jnp.float32)
    scale = jnp.asarray([1 / (255 * s) for s in std], precise)
    offset = jnp.asarray([m / s for m, s in zip(mean, std, strict=True)], precise)
    return (jnp.asarray(images, precise) * scale - offset).astype(dtype)


def _flip(images: jax.Array, rng: jax.Array) -> jax.Array:
    flipped = jax.random.bernoulli(rng, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


def _crop(images: jax.Array, rng: jax.Array) -> jax.Array:
    batch, height, width, channels = images.shape
    rows, columns = height // _PADDING, width // _PADDING
    padded = jnp.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    starts = jax.random.randint(rng, (batch, 2), 0, jnp.array([2 * rows + 1, 2 * columns + 1]))

    def window(image: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (start[0], start[1], 0), (height, width, channels))

    return jax.vmap(window)(padded, starts)


def _random_resized_crop(image: jax.Array, rng: jax.Array, image_size: int) -> jax.Array:
    sides = jnp.array(image.shape[:2], jnp.float32)
    area_rng, aspect_rng, start_rng = jax.random.split(rng, 3)
    area = jax.random.uniform(area_rng, minval=_AREA[0], maxval=_AREA[1])
    low, high = jnp.log(jnp.array(_ASPECT))
    root = jnp.exp(jax.random.uniform(aspect_rng, minval=low, maxval=high) / 2)
    window = jnp.minimum(jnp.sqrt(area) * jnp.array([1 / root, root]), 1.0) * sides
    start = jax.random.uniform(start_rng, (2,)) * (sides - window)
    scale = image_size / window
    shape = (image_size, image_size, image.shape[2])
    return jax.image.scale_and_translate(
        image.astype(jnp.float32), shape, (0, 1), scale, -start * scale, "bilinear", antialias=True
    )


def _round(images: jax.Array) -> jax.Array:
    return jnp.clip(jnp.round(images), 0, 255).astype(jnp.uint8)
