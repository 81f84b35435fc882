"""Makes the photographs in ppvit_jax/assets from scikit-image's: python tests/helpers/make_photographs.py"""

from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

def halve(picture: np.ndarray) -> np.ndarray:
    """Returns the rounded mean of every 2x2 pixels, uint8 [height // 2, width // 2, ...]."""
    height, width = (side // 2 * 2 for side in picture.shape[:2])
    even = picture[:height, :width].astype(np.uint32)
    sums = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return ((sums + 2) // 4).astype(np.uint8)


# By the name of the file: the function in scikit-image.
PHOTOGRAPHS = {
    "astronaut": skimage.data.astronaut,
    "cat": skimage.data.chelsea,
    "coffee": skimage.data.coffee,
    "bricks": skimage.data.brick,
    "grass": skimage.data.grass,
    "gravel": skimage.data.gravel,
}

if __name__ == "__main__":
    assets = Path(__file__).parents[2] / "ppvit_jax" / "assets"
    for name, load in PHOTOGRAPHS.items():
        Image.fromarray(halve(load())).save(assets / f"photograph_{name}.png", optimize=True)
