"""Natural images for the tests of the audit, plain and encrypted."""

import numpy as np
from sklearn.datasets import load_sample_image

from ppvit_jax.audit.attack import Counts, EncryptedImages, Inputs
from ppvit_jax.encryption import Encryption, Secret, parse
from ppvit_jax.keys import SecretKey

_COUNTS = Counts()


def crops(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """Returns random crops of scikit-learn's two photographs, in turns: uint8 [count, size, size, 3]."""
    random = np.random.default_rng(seed)
    photos = [load_sample_image("china.jpg"), load_sample_image("flower.jpg")]
    corners = random.integers(0, [420 - size, 640 - size], (count, 2))
    return np.stack([photos[i % 2][y : y + size, x : x + size] for i, (y, x) in enumerate(corners)])


def encrypt(method: Encryption, images: np.ndarray, key: int, first: int = 0) -> tuple[np.ndarray, Secret]:
    """Encrypts images [n, height, width, 3], numbered from `first`; returns them and the secret of key number `key`."""
    secret = method.derive(SecretKey(bytes([key] * 32)), height=images.shape[1], width=images.shape[2])
    return method.encrypt(images, secret, np.arange(len(images), dtype=np.uint32) + first), secret


def image_inputs(spec: str, images: np.ndarray, counts: Counts = _COUNTS) -> Inputs:
    """Returns the inputs of an attack on these images, encrypted in blocks of 8x8 pixels."""
    method = parse(spec, 8)
    encrypted, secret = encrypt(method, images, key=1)
    return Inputs(encrypted=EncryptedImages(encrypted, method, secret), plain=images, counts=counts)
