"""Lists of encryptions for help texts, derived from the registry of methods."""

import dataclasses
import zlib

import numpy as np

from ppvit_jax.encryption import METHODS, parse
from ppvit_jax.errors import UserError

# A small image that every method can divide: 2x2 blocks of 4x4 pixels.
_BLOCK_SIZE, _IMAGE_SIZE = 4, 8


class _PublicRandomness:
    """Stands in for a key where only the form of an encryption matters; see `ppvit_jax.encryption.Randomness`."""

    def permutation(self, label: str, length: int) -> np.ndarray:
        return self._generator(label).permutation(length).astype(np.int32)

    def integers(self, label: str, count: int, bound: int) -> np.ndarray:
        return self._generator(label).integers(0, bound, count, np.int32)

    def bits(self, label: str, count: int) -> np.ndarray:
        return self._generator(label).integers(0, 2, count).astype(bool)

    def words(self, label: str, count: int) -> np.ndarray:
        return self._generator(label).integers(0, 2**32, count, np.uint32)

    def _generator(self, label: str) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(label.encode()))


def image_encryptions() -> list[str]:
    """Returns the names of the encryptions whose results are images, so that files can hold them."""
    return [name for name, method in METHODS.items() if not method.encodes]


def adaptable_encryptions() -> list[str]:
    """Returns the encryptions that a model can be adapted to, as --encryption takes them.

    A method that can be adapted to only with one of its switches set, such as EtC, is listed with that switch.
    """
    specs = []
    for name, method in METHODS.items():
        switches = [
            f"{name}:{field.name}={not field.default}"
            for field in dataclasses.fields(method)
            if isinstance(field.default, bool)
        ]
        specs += [spec for spec in (name, *switches) if _can_be_absorbed(spec)][:1]
    return specs


def _can_be_absorbed(spec: str) -> bool:
    try:
        parse(spec, _BLOCK_SIZE).absorb(_PublicRandomness(), height=_IMAGE_SIZE, width=_IMAGE_SIZE)
    except UserError:
        return False
    return True
