"""Encodings of a secret, to search for in files that must not contain it."""

import base64
from collections.abc import Iterator

import numpy as np

from ppvit_jax.encryption import derive_permutations
from ppvit_jax.encryption.blockwise import make_secret
from ppvit_jax.keys import SecretKey


def needles(key: SecretKey, *, image_size: int, patch_size: int) -> Iterator[tuple[str, bytes]]:
    """Yields encodings of a key, its subkeys and its permutations, each with the name of the secret."""
    permutations = derive_permutations(key, "bs+ps", image_size=image_size, block_size=patch_size)
    assert permutations.block is not None
    index = make_secret(permutations, image_size, image_size, patch_size)["index"]
    inverse = permutations.inverse()
    secrets = {"master key": key.master}
    for name, length in (("block", (image_size // patch_size) ** 2), ("pixel", 3 * patch_size**2)):
        secrets[f"{name} subkey"] = key._subkey(f"{name}/{length}".encode(), 32)
    for name, secret in list(secrets.items()):
        # Only whole groups of three bytes: the encoding of a partial group depends on the bytes after it.
        whole = [secret[offset : len(secret) - (len(secret) - offset) % 3] for offset in range(3)]
        encoded = {base64.b64encode(part) for part in whole}
        encoded |= {secret.hex().encode(), secret.hex().upper().encode(), str(list(secret))[1:-1].encode()}
        yield name, secret
        yield name, secret[::-1]
        for text in encoded | {base64.urlsafe_b64encode(part) for part in whole}:
            yield name, text
    arrays = {
        "block permutation": permutations.block,
        "pixel permutation": permutations.pixel,
        "inverse block permutation": inverse.block,
        "inverse pixel permutation": inverse.pixel,
        "rows of the position embedding": np.concatenate([[0], permutations.block + 1]),
        "gather": index,
    }
    for name, array in arrays.items():
        # A part of an array is a leak, too: 12 consecutive entries at its start, in its middle and at its end.
        for start in (0, len(array) // 2, len(array) - 12):
            part = array[start : start + 12]
            for dtype in ("u1", "<i2", ">i2", "<i4", ">i4", "<i8", ">i8", "<f4", "<f8"):
                if part.max() < 256 or dtype != "u1":
                    yield name, part.astype(dtype).tobytes()
            for separator in (",", ", ", " ", ",\n", "\n"):
                yield name, separator.join(map(str, part)).encode()
