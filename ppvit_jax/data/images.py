"""Decoding and resizing of image files to uint8 RGB arrays."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.formats import accepted_formats, is_heic
from ppvit_jax.errors import UserError

Resize = Literal["centre_crop", "squash"]
RESIZES: tuple[Resize, ...] = get_args(Resize)
# Names that users are shown, with the values that configurations and manifests are compared by.
RESIZE_NAMES: dict[str, Resize] = {"center_crop": "centre_crop", "squash": "squash"}
# Pillow warns about larger images and rejects images with twice as many pixels. We do not raise its limit, because that
# would affect the whole process.
DEFAULT_MAX_PIXELS = 89_478_485
MAX_PIXELS_LIMIT = 2 * DEFAULT_MAX_PIXELS


@dataclasses.dataclass(frozen=True)
class ImageReader:
    """Reads image files to uint8 arrays of one size.

    Attributes:
      image_size: side of the square result in pixels; None keeps the size of each image.
      resize: "centre_crop" keeps the largest centered square; "squash" scales height and width separately.
      max_pixels: images with more pixels are rejected.
    """

    image_size: int | None
    resize: Resize
    max_pixels: int

    def decode(self, file: Path | bytes, name: str) -> np.ndarray:
        """Decodes an image and resizes it.

        Args:
          file: a path, or the bytes of the file.
          name: the image's name, for messages.

        Returns:
          uint8 [image_size, image_size, 3], or [height, width, 3] if the size is None.

        Raises:
          UserError: see `decode`.
        """
        image = decode(file, name=name, max_pixels=self.max_pixels)
        return np.asarray(image) if self.image_size is None else fit(image, self.image_size, self.resize)

    def read(self, path: Path, sha256: str | None = None) -> np.ndarray:
        """Reads and decodes one file, and compares its content with a manifest's SHA-256.

        Args:
          path: the file.
          sha256: the result of `Manifest.sha256`, in hexadecimal; None without a manifest.

        Returns:
          An array, as `decode` returns it.

        Raises:
          UserError: the file cannot be read, or it does not match the manifest.
        """
        if sha256 is None:
            return self.decode(path, str(path))
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path} ({error.strerror}): replace or remove it") from None
        manifests.check_content(path, content, sha256)
        return self.decode(content, str(path))


def decode(file: Path | bytes, *, name: str, max_pixels: int) -> Image.Image:
    """Decodes an image to 8-bit RGB, upright.

    The EXIF orientation is applied. Transparency (alpha or a transparent color) is composited on white. Grayscale,
    1-bit, palette, CMYK and YCbCr images become RGB; color profiles are ignored. A 16-bit gray value v becomes
    round(v / 257), and a floating point gray value v in [0, 1] becomes round(255 v). 16-bit color keeps its high byte.
    An animation is represented by its first frame.

    Args:
      file: a path, or the bytes of the file.
      name: the image's name, for messages.
      max_pixels: the largest number of pixels (height x width) to accept.

    Returns:
      An image of mode RGB.

    Raises:
      UserError: the file is not a readable image or is truncated, it has more than `max_pixels` pixels, or its values
        exceed 16 bits.
    """
    try:
        formats = accepted_formats(Path(name).suffix.lower())
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=formats) as image:
            if image.width * image.height > max_pixels:
                raise UserError(
                    f"{name} has {image.width} x {image.height} pixels, more than the {max_pixels:,} "
                    "allowed: make it smaller, or raise data.max_pixels or --max-pixels"
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
        if is_heic(file):
            raise UserError(f"{name} is a HEIC image, which Pillow does not read here: convert it to JPEG") from error
        raise UserError(f"{name} is not an image that can be read: replace or remove it") from error
    # Pillow's decoders raise almost anything on a damaged file (SyntaxError, struct.error, IndexError, ...).
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"cannot read {name} ({reason}): replace or remove it") from error


def fit(image: Image.Image, image_size: int, resize: Resize) -> np.ndarray:
    """Resizes an RGB image to a square, bilinearly with antialiasing. An image of that size does not change.

    Args:
      image: mode RGB.
      image_size: height and width of the result.
      resize: see `ImageReader`.

    Returns:
      uint8 [image_size, image_size, 3].
    """
    if resize == "centre_crop":
        # Cropping inside the resize works on the square alone: otherwise a 1 x 10000 image would grow huge.
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
    else:
        box = (0, 0, image.width, image.height)
    resized = image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)
    return np.array(resized, np.uint8)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        image = _scale_grayscale(image, name)
    if image.has_transparency_data:
        colored = image.convert("RGBA")
        white = Image.new("RGBA", colored.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, colored)
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_grayscale(image: Image.Image, name: str) -> Image.Image:
    """Converts modes I;16, I and F to L by scaling; Pillow's own conversion clips at 255."""
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
