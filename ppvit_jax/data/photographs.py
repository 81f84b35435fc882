"""Crops of six photographs: a small classification of real pixels, in the package itself.

A class is what a photograph shows. Training crops and test crops come from regions of it that do not overlap. Crops
vary in place, scale, and exposure. Half of them are mirrored, and half are black and white. So neither colors nor
brightness decide. The draw is fixed: it does not depend on a configuration's seed. `ppvit_jax/assets/README.md` has
the sources and licenses of the photographs.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
from typing import NamedTuple

import numpy as np
from PIL import Image

from ppvit_jax.data.source import ArraySource

SIZE = 64
TRAIN_COUNT, TEST_COUNT = 96, 90
_SIDES = (48, 96)
_EXPOSURES = (-1.0, 1.0)


class Region(NamedTuple):
    """Rectangle of a photograph, in its pixels; right and bottom are excluded."""

    left: int
    top: int
    right: int
    bottom: int


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A class of the data set.

    name: of the class.
    file: in the package's assets.
    train, test: the regions that crops come from.
    """

    name: str
    file: str
    train: Region
    test: Region


PHOTOGRAPHS = (
    Photograph("astronaut", "photograph_astronaut.png", Region(0, 0, 118, 256), Region(118, 8, 200, 128)),
    Photograph("cat", "photograph_cat.png", Region(0, 0, 124, 150), Region(124, 0, 204, 150)),
    Photograph("coffee", "photograph_coffee.png", Region(0, 0, 150, 200), Region(150, 0, 300, 200)),
    Photograph("bricks", "photograph_bricks.png", Region(0, 0, 128, 256), Region(128, 0, 256, 256)),
    Photograph("grass", "photograph_grass.png", Region(0, 0, 128, 256), Region(128, 0, 256, 256)),
    Photograph("gravel", "photograph_gravel.png", Region(0, 0, 128, 256), Region(128, 0, 256, 256)),
)


class Crop(NamedTuple):
    """Square of a photograph that becomes an image.

    left, top, side: in the photograph's pixels.
    mirrored: left and right change places.
    gray: the crop is black and white.
    exposure: the value v of a pixel, from 0 to 1, becomes v ** (2 ** -exposure); 0 leaves it.
    """

    left: int
    top: int
    side: int
    mirrored: bool
    gray: bool
    exposure: float


def load_photographs() -> tuple[ArraySource, ArraySource, tuple[str, ...]]:
    """Cuts the crops: uint8 64x64x3 images, in turns of the classes.

    Returns:
      train and test (images uint8 [n, 64, 64, 3], labels int32 [n]), and the class names.
    """
    pictures = [_read(photograph) for photograph in PHOTOGRAPHS]
    train, test = (
        _cut(pictures, [crops(photograph, split) for photograph in PHOTOGRAPHS]) for split in ("train", "test")
    )
    return train, test, tuple(photograph.name for photograph in PHOTOGRAPHS)


def crops(photograph: Photograph, split: str) -> list[Crop]:
    """Draws the crops of a photograph's "train" or "test" region; the first to test on shows as much as it can."""
    region = photograph.train if split == "train" else photograph.test
    number = 2 * PHOTOGRAPHS.index(photograph) + (split == "test")
    random = np.random.Generator(np.random.Philox(number))
    width, height = region.right - region.left, region.bottom - region.top
    drawn = []
    for _ in range(TRAIN_COUNT if split == "train" else TEST_COUNT):
        side = int(random.integers(_SIDES[0], min(_SIDES[1], width, height), endpoint=True))
        left = region.left + int(random.integers(width - side, endpoint=True))
        top = region.top + int(random.integers(height - side, endpoint=True))
        mirrored, gray = random.integers(2, size=2) == 1
        drawn.append(Crop(left, top, side, bool(mirrored), bool(gray), float(random.uniform(*_EXPOSURES))))
    if split == "test":
        side = min(width, height)
        drawn[0] = Crop(region.left + (width - side) // 2, region.top + (height - side) // 2, side, False, False, 0.0)
    return drawn


def _read(photograph: Photograph) -> Image.Image:
    path = importlib.resources.files("ppvit_jax") / "assets" / photograph.file
    with path.open("rb") as file, Image.open(file) as picture:
        return picture.convert("RGB")


def _cut(pictures: list[Image.Image], crops_by_class: list[list[Crop]]) -> ArraySource:
    images, labels = [], []
    for turn in zip(*crops_by_class, strict=True):
        for label, (picture, crop) in enumerate(zip(pictures, turn, strict=True)):
            box = (crop.left, crop.top, crop.left + crop.side, crop.top + crop.side)
            # Cut before it is resized: resizing with a box looks at pixels around the box.
            image = picture.crop(box).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            if crop.mirrored:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            if crop.gray:
                image = image.convert("L").convert("RGB")
            curve = np.rint(255 * (np.arange(256) / 255) ** 2.0**-crop.exposure).astype(np.uint8)
            images.append(curve[np.asarray(image)])
            labels.append(label)
    return ArraySource(np.stack(images), np.array(labels, np.int32))
