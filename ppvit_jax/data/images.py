"""Image files of any common kind -> uint8 RGB arrays."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from ppvit_jax.errors import UserError

Resize = Literal["centre_crop", "squash"]

# Pillow refuses larger images itself; raising its limit would change it for the whole process.
MAX_PIXELS_LIMIT = 2 * 89_478_485


def decode(file: Path | bytes, *, name: str, max_pixels: int) -> Image.Image:
    """Decodes an image to 8-bit RGB, upright.

    The EXIF orientation is applied; transparency (alpha or a transparent colour) is composited on white;
    greyscale, 1-bit, palette, CMYK and YCbCr images become RGB, colour profiles ignored. 16-bit greyscale v
    becomes round(v / 257), floating point greyscale v in [0, 1] round(255 v); of 16-bit colour Pillow keeps
    the high byte. Of an animation the first frame counts.

    Args:
        file: a path, or the bytes of the file.
        name: what to call the image in a message.
        max_pixels: the most pixels (height x width) to accept.

    Returns:
        An image of mode RGB.

    Raises:
        UserError: not a readable image, truncated, more than `max_pixels` pixels, or values beyond 16 bits.
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            if image.width * image.height > max_pixels:
                raise UserError(
                    f"{name} has {image.width} x {image.height} pixels, more than the {max_pixels:,} "
                    "allowed: make it smaller, or allow more by data.max_pixels or --max-pixels"
                )
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image, name)
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        reason = str(error).split(",")[0]
        raise UserError(f"{name}: {reason}: make the image smaller") from error
    except Image.UnidentifiedImageError as error:
        raise UserError(f"{name} is not an image that can be read: replace or remove it") from error
    # Pillow's decoders raise almost anything on a damaged file (SyntaxError, struct.error, IndexError, ...).
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"cannot read {name} ({reason}): replace or remove it") from error


def fit(image: Image.Image, image_size: int, resize: Resize) -> np.ndarray:
    """Resizes an RGB image to a square, bilinear with antialiasing; the identity if it has that size already.

    Args:
        image: mode RGB.
        image_size: height and width of the result.
        resize: "centre_crop" keeps the largest centred square, "squash" scales height and width each.

    Returns:
        uint8 [image_size, image_size, 3].
    """
    if resize == "centre_crop":
        # Cropping inside the resize touches only the square: a 1 x 10000 image would grow huge otherwise.
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
    else:
        box = (0, 0, image.width, image.height)
    resized = image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)
    return np.array(resized, np.uint8)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        image = _deep_greyscale(image, name)
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, coloured)
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_greyscale(image: Image.Image, name: str) -> Image.Image:
    """Modes I;16, I and F -> L by scaling, where Pillow's own conversion clips at 255."""
    values = np.asarray(image)
    if image.mode == "F":
        # NaN fails this comparison too.
        if not (values.min() >= 0 and values.max() <= 1):
            raise UserError(f"{name} has floating point values outside [0, 1]: save it with 8 bits a channel")
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if values.min() < 0 or values.max() > 65535:
        raise UserError(f"{name} has values beyond 16 bits: save it with 8 bits a channel")
    scaled = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if "transparency" in image.info:
        scaled[values == image.info["transparency"]] = 255
    return Image.fromarray(scaled)
