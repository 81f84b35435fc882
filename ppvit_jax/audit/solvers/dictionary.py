"""Recognises known images among encrypted ones without any key: a dictionary attack.

What the encryptions do to a block leaves its values v as they are or inverts them, so that a block's sum of |v - 127.5|
is the same before and after; likewise for the four-bit halves of values. Of a random network's encodings it is known
that they give images away (Carlini et al., arXiv 2108.07256); here by patches that resemble each other, which they do
before and after.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from scipy.spatial.distance import cdist

from ppvit_jax.audit.solvers.structure import flatten, mix, structure
from ppvit_jax.encryption.method import Encryption
from ppvit_jax.encryption.permutations import split_blocks
from ppvit_jax.errors import UserError

_BATCH = 50
# Images are compared by no more blocks than this, or runs of them; without blocks, of pixels.
_BLOCKS = 256
# Pairs of patches by whose distances encodings are compared.
_PATCH_PAIRS = 4096
# Boxes into which what etc's legacy channels leave of blocks is sorted.
_BOXES = 2048
# A sum of a block's values by this table tells how often each occurs.
_TABLE = np.random.default_rng(0).integers(0, 2**64, 128, np.uint64)


@dataclasses.dataclass(frozen=True)
class Identification:
    """The candidates that n encrypted images are likely to be of.

    index: int64 [n], the number of the candidate that is nearest.
    distance: float64 [n], how far that is: 0 for the right one of a method that moves and inverts values.
    runner_up: float64 [n], how far the second nearest is; infinite if there is one candidate alone.
    """

    index: np.ndarray
    distance: np.ndarray
    runner_up: np.ndarray


def identify(
    method: Encryption, candidates: np.ndarray | Iterable[np.ndarray], encrypted: np.ndarray
) -> Identification:
    """Finds for every encrypted image, whatever its key, the candidate that it is likely to be of.

    The distance is the mean difference of the blocks' means of |v - 127.5|, in order of size where blocks move. Under
    etc's `legacy` channels it tells how few of the blocks' channels the candidate has, above 0 for the right one too.
    For encodings it is 1 minus the correlation of the distances between an image's patches, before and
    after.

    Args:
      method: with the right block size; no key.
      candidates: uint8 [m, height, width, 3], or batches of such, read once.
      encrypted: uint8 [n, height, width, 3], or encodings as the method makes them.

    Raises:
      UserError: no candidates, images that differ in size from the encrypted ones; or a method for which this is not
        built.
    """
    if method.encodes and method.per_image:
        raise UserError(
            f"no dictionary attack on encryption {method.spec} is built: it puts every image's patches in an order of "
            "its own; use reorder=False"
        )
    known = _signatures(method, encrypted)
    index = np.zeros(len(encrypted), np.int64)
    distance, runner_up = np.full((2, len(encrypted)), np.inf)
    first = 0
    batches = [candidates] if isinstance(candidates, np.ndarray) else candidates
    for batch in batches:
        patches = batch.shape[1] * batch.shape[2] // method.block_size**2
        if batch.shape[1:] != encrypted.shape[1:] and (encrypted.ndim != 3 or patches != encrypted.shape[1]):
            raise UserError(
                f"candidates of shape {batch.shape[1:]} and encrypted images of shape {encrypted.shape[1:]} differ in "
                "size: resize the candidates likewise"
            )
        signatures = _signatures(method, batch)
        for start in range(0, len(batch), _BATCH):
            metric = "correlation" if method.encodes else "cityblock"
            found = cdist(known, signatures[start : start + _BATCH], metric)
            # Values without any contrast correlate with nothing.
            found = np.where(np.isnan(found), 2, found) / (1 if method.encodes else known.shape[1])
            nearest, order = found.min(axis=1), found.argmin(axis=1)
            second = np.partition(found, 1, axis=1)[:, 1] if found.shape[1] > 1 else np.inf
            better = nearest < distance
            runner_up = np.where(better, np.minimum(distance, second), np.minimum(runner_up, nearest))
            index = np.where(better, first + start + order, index)
            distance = np.where(better, nearest, distance)
        first += len(batch)
    if first == 0:
        raise UserError("no candidates: give images that the encrypted ones may be of")
    return Identification(index, distance, runner_up)


def duplicates(method: Encryption, encrypted: np.ndarray) -> list[list[int]]:
    """Groups of encrypted images that hold the same blocks, whatever their places and keys: images that are equal; and
    for most methods mirrored and rotated ones too, if the block grid is.

    etc's `legacy` channels change what a block holds, so that only equal images under one key are found.

    Args:
      method: with the right block size; no key.
      encrypted: uint8 [n, height, width, 3].

    Returns:
      Each group of two or more, as their numbers in increasing order, by its first.

    Raises:
      UserError: a method that encodes images.
    """
    parts = structure(method, *encrypted.shape[1:3])
    # A pixel is a site where there are no blocks.
    places = parts.places.reshape(-1, 3) if not method.blocks else parts.places.reshape(len(parts.places), -1)
    groups: dict[int, list[int]] = {}
    for number, image in enumerate(encrypted):
        contents = _TABLE[_fold(flatten(method, image[None])[0], parts.top)][places].sum(axis=-1)
        groups.setdefault(int(mix(contents).sum()), []).append(number)
    return [group for group in groups.values() if len(group) > 1]


def _signatures(method: Encryption, images: np.ndarray) -> np.ndarray:
    """float32 [n, features] of images or encodings, by batches so that little memory is used."""
    if images.ndim < 3 or len(images) == 0:
        raise UserError(f"images of shape {images.shape}: give at least one, [n, height, width, 3]")
    sign = _distances if method.encodes else _contents
    return np.concatenate([sign(method, images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)])


def _contents(method: Encryption, images: np.ndarray) -> np.ndarray:
    """Returns those features of the contents of blocks that no key changes."""
    parts, flat = structure(method, *images.shape[1:3]), flatten(method, images)
    if not parts.group:
        channels = parts.places.reshape(-1, parts.places.shape[-1] // 3, 3)
        boxes = _TABLE[_fold(flat, parts.top)][:, channels].sum(axis=2) % _BOXES
        found = np.zeros((len(images), _BOXES), np.float32)
        np.put_along_axis(found, boxes.reshape(len(images), -1).astype(np.int64), 1, axis=1)
        return found
    folded = _fold(flat, parts.top)
    # A pixel stands for a block where there are none.
    places = parts.places.reshape(-1, 3) if not method.blocks else parts.places.reshape(len(parts.places), -1)
    means = folded[:, places].mean(axis=-1, dtype=np.float32)
    means = np.sort(means, axis=1) if parts.blocks_move else means
    run = -(-len(places) // _BLOCKS)
    return np.add.reduceat(means, np.arange(0, len(places), run), axis=1) / run


def _distances(method: Encryption, images: np.ndarray) -> np.ndarray:
    """Distances between some patches of an image, or encoded patches."""
    patches = images if images.ndim == 3 else split_blocks(images.astype(np.float32), method.block_size)
    first, second = np.triu_indices(patches.shape[1], 1)
    chosen = np.random.default_rng(0).permutation(len(first))[:_PATCH_PAIRS]
    first, second = first[chosen], second[chosen]
    squares = (patches**2).sum(axis=-1)
    # By inner products: differences of all pairs would need far more memory.
    products = (patches @ patches.swapaxes(1, 2))[:, first, second]
    return np.sqrt(np.maximum(squares[:, first] + squares[:, second] - 2 * products, 0))


def _fold(values: np.ndarray, top: int) -> np.ndarray:
    """|v - top / 2| - 1/2 of uint8 values: the same for a value and its inversion."""
    return np.maximum(values, top - values) - np.uint8(top // 2 + 1)
