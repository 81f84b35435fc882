"""Image files for tests of the owner's commands."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_images(folder: Path, names: list[str], size: int = 20, seed: int = 0) -> dict[str, np.ndarray]:
    """Writes smooth random images in the formats of the names' extensions; returns their values by name."""
    random = np.random.default_rng(seed)
    written = {}
    for name in names:
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8))
        image = coarse.resize((size, size), Image.Resampling.BICUBIC)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        written[name] = np.asarray(image)
    return written


def read_images(folder: Path) -> dict[str, np.ndarray]:
    """Returns the values of all PNG files below a folder, by relative path."""
    return {path.relative_to(folder).as_posix(): np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))}


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the bytes of every file below a folder, hidden files included, by relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
