"""ChaCha20 (RFC 8439) on numpy and JAX arrays: derives a separate key for every image, also inside a compiled step."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ppvit_jax.encryption.permutations import Array

if TYPE_CHECKING:
    import jax

_CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)  # "expand 32-byte k"
_COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def stream(key: "np.ndarray | jax.Array", numbers: Array, count: int) -> Array:
    """Computes the first words of each number's keystream.

    Args:
      key: uint32 [8], the 256-bit key as little-endian words; numpy or JAX.
      numbers: uint32 [...]. Each is the first 4 bytes (little-endian) of a nonce whose other 8 bytes are 0; the block
        counter starts at 0.
      count: words per number, at most 2**36.

    Returns:
      uint32 [..., count].
    """
    xp: Any = numbers.__array_namespace__()
    blocks = -(-count // 16)
    column = xp.asarray(numbers, dtype=xp.uint32)[..., None]
    counter = xp.arange(blocks, dtype=xp.uint32)
    zero = xp.zeros((*column.shape[:-1], blocks), dtype=xp.uint32)
    first = [np.uint32(word) + zero for word in _CONSTANTS]
    first += [xp.asarray(key[index], dtype=xp.uint32) + zero for index in range(8)]
    first += [counter + zero, column + zero, zero, zero]
    if xp is np:
        state = tuple(first)
        for number in range(10):
            state = _double_round(number, state)
    else:
        from jax import lax  # imported here, because encrypting with numpy needs no JAX

        state = lax.fori_loop(0, 10, _double_round, tuple(first))
    words = xp.stack([word + begin for word, begin in zip(state, first, strict=True)], axis=-1)
    return words.reshape(*words.shape[:-2], blocks * 16)[..., :count]


def permutations(key: "np.ndarray | jax.Array", numbers: Array, length: int) -> Array:
    """Derives a permutation for each number: the order that sorts the number's words stably.

    Args:
      key: uint32 [8], as for `stream`.
      numbers: uint32 [...], as for `stream`.
      length: places of a permutation.

    Returns:
      int32 [..., length].
    """
    words = stream(key, numbers, length)
    xp = words.__array_namespace__()
    return xp.argsort(words, axis=-1, stable=True).astype(xp.int32)


def _double_round(_: Any, words: tuple[Any, ...]) -> tuple[Any, ...]:
    state = list(words)
    for places in (*_COLUMNS, *_DIAGONALS):
        _quarter_round(state, *places)
    return tuple(state)


def _quarter_round(state: list[Any], a: int, b: int, c: int, d: int) -> None:
    for target, other, source, shift in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[target] = state[target] + state[other]
        mixed = state[source] ^ state[target]
        state[source] = (mixed << np.uint32(shift)) | (mixed >> np.uint32(32 - shift))
