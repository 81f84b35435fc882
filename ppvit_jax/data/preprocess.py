"""Device-side preprocessing: augmentation, resizing and normalization of uint8 images.

`preprocess` returns rounded uint8 images at the model's size, before encryption. Encryption on the device and offline
(to PNG) therefore gives identical bits where both run on the same kind of device. Resizing may round differently on
others.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ppvit_jax.data.augmentation import AUGMENTATIONS
from ppvit_jax.data.rand_augment import rand_augment

_PADDING = 8  # crops shift by up to 1/8 of the side: 4 pixels at 32x32, as is usual for CIFAR
_AREA = (0.35, 1.0)
_ASPECT = (3 / 4, 4 / 3)


def preprocess(
    images: jax.Array, image_size: int, augmentation: str = "none", rng: jax.Array | None = None
) -> jax.Array:
    """Augments and resizes images.

    Args:
      images: uint8 [batch, height, width, 3].
      image_size: side of the result in pixels.
      augmentation: "none"; "flip" (horizontal, with probability 1/2); "crop" (zero padding by 1/8 of the side, then a
        random window of the original size); "flip+crop"; "flip+crop+rand" (then RandAugment with two operations of
        magnitude 12); or "random_resized_crop" (Inception's, with area 0.35 to 1 and aspect ratio 3/4 to 4/3, and a
        flip).
      rng: random key, needed unless the augmentation is "none".

    Returns:
      uint8 [batch, image_size, image_size, 3], resized bilinearly with antialiasing and rounded. Images that already
      have this size keep every bit.

    Raises:
      ValueError: the augmentation is unknown.
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
    # jax.image.resize is not used: its weights, and so a few pixels, depend on whether float64 is enabled in JAX.
    scale = jnp.array([image_size / height, image_size / width], jnp.float32)
    start = jnp.zeros(2, jnp.float32)
    images = images.astype(jnp.float32)
    return _round(jax.image.scale_and_translate(images, shape, (1, 2), scale, start, "bilinear", antialias=True))


def normalize_images(
    images: jax.Array | np.ndarray, mean: Sequence[float], std: Sequence[float], dtype: DTypeLike
) -> jax.Array:
    """Normalizes images: (x / 255 - mean) / std. With mean and std 0.5 this is x / 127.5 - 1.

    Args:
      images: [..., 3], uint8 or encrypted values of the same range.
      mean: one number per channel, in units of the full range.
      std: one number per channel, in units of the full range.
      dtype: floating point type of the result; the arithmetic is in at least float32.

    Returns:
      [..., 3] in `dtype`.
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
