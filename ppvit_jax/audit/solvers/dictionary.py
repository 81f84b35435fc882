"""Dictionary attack: recognizes known images among encrypted ones without any key.

The encryptions move the values v of a block or invert them, so a block's sum of |v - 127.5| is the same before and
after encryption; likewise for the four-bit halves of values. The encodings of a random network are known to reveal
images as well (Carlini et al., arXiv 2108.07256). They are recognized by distances between patches: patches that are
similar before encoding are similar after it.
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
# The largest number of features by which images are compared: means over runs of blocks, or of pixels.
_BLOCKS = 256
# The largest number of patch pairs whose distances are compared.
_PATCH_PAIRS = 4096
# Number of hash buckets for the channels of blocks under etc's published and in_place channels.
_BOXES = 2048
# Random hash of each value: the sum over a block identifies the multiset of its values.
_TABLE = np.random.default_rng(0).integers(0, 2**64, 128, np.uint64)


@dataclasses.dataclass(frozen=True)
class Identification:
    """The most likely candidate for each of n encrypted images.

    index: int64 [n], the number of the nearest candidate.
    distance: float64 [n], its distance; 0 for the right candidate if the method only moves and inverts values.
    runner_up: float64 [n], the distance of the second nearest candidate; infinite if there is only one candidate.
    """

    index: np.ndarray
    distance: np.ndarray
    runner_up: np.ndarray


def identify(
    method: Encryption, candidates: np.ndarray | Iterable[np.ndarray], encrypted: np.ndarray
) -> Identification:
    """Finds the most likely candidate for every encrypted image, whatever its key.

    The distance between two images is the mean absolute difference between their blocks' means of |v - 127.5|, sorted
    if blocks move. Under etc's `published` and `in_place` channels, it measures how few channels of blocks the images
    share, and even the right candidate has a distance above 0. For encodings, it is 1 minus the correlation between the
    patch distances of the two images.

    Args:
      method: the encryption method, with its block size; it has no key.
      candidates: uint8 [m, height, width, 3], or an iterable of such batches, which is read once.
      encrypted: uint8 [n, height, width, 3], or encodings as the method returns them.

    Returns:
      The nearest candidate of each encrypted image, and its distance.

    Raises:
      UserError: there are no candidates, they differ in size from the encrypted images, or the attack does not support
        the method.
    """
    if method.encodes and method.per_image:
        raise UserError(
            f"there is no dictionary attack on encryption {method.spec}, which gives every image an order of its own: "
            "use reorder=False"
        )
    targets = _signatures(method, encrypted)
    index = np.zeros(len(encrypted), np.int64)
    distance, runner_up = np.full((2, len(encrypted)), np.inf)
    first = 0
    batches = [candidates] if isinstance(candidates, np.ndarray) else candidates
    for batch in batches:
        patches = batch.shape[1] * batch.shape[2] // method.block_size**2
        if batch.shape[1:] != encrypted.shape[1:] and (encrypted.ndim != 3 or patches != encrypted.shape[1]):
            raise UserError(
                f"candidates of shape {batch.shape[1:]} and encrypted images of shape {encrypted.shape[1:]} differ in "
                "size: resize the candidates to match"
            )
        signatures = _signatures(method, batch)
        for start in range(0, len(batch), _BATCH):
            metric = "correlation" if method.encodes else "cityblock"
            distances = cdist(targets, signatures[start : start + _BATCH], metric)
            # The correlation of constant features is undefined: use the largest distance.
            distances = np.where(np.isnan(distances), 2, distances) / (1 if method.encodes else targets.shape[1])
            nearest, order = distances.min(axis=1), distances.argmin(axis=1)
            second = np.partition(distances, 1, axis=1)[:, 1] if distances.shape[1] > 1 else np.inf
            better = nearest < distance
            runner_up = np.where(better, np.minimum(distance, second), np.minimum(runner_up, nearest))
            index = np.where(better, first + start + order, index)
            distance = np.where(better, nearest, distance)
        first += len(batch)
    if first == 0:
        raise UserError("there are no candidates: give plain images that may be among the encrypted ones")
    return Identification(index, distance, runner_up)


def duplicates(method: Encryption, encrypted: np.ndarray) -> list[list[int]]:
    """Finds groups of encrypted images that contain the same blocks, whatever their places and keys.

    The images of a group have equal plain images. For most methods, images that are mirrored or rotated together with
    the block grid are found too. Under etc's `published` and `in_place` channels, only equal images with one key are
    found.

    Args:
      method: the encryption method, with its block size; it has no key.
      encrypted: uint8 [n, height, width, 3].

    Returns:
      The groups of two or more images, each as increasing numbers, sorted by the first number.

    Raises:
      UserError: the method encodes images.
    """
    parts = structure(method, *encrypted.shape[1:3])
    # Without blocks, a pixel takes the place of a block.
    places = parts.places.reshape(-1, 3) if not method.blocks else parts.places.reshape(len(parts.places), -1)
    groups: dict[int, list[int]] = {}
    for number, image in enumerate(encrypted):
        contents = _TABLE[_fold(flatten(method, image[None])[0], parts.top)][places].sum(axis=-1)
        groups.setdefault(int(mix(contents).sum()), []).append(number)
    return [group for group in groups.values() if len(group) > 1]


def _signatures(method: Encryption, images: np.ndarray) -> np.ndarray:
    """Returns the features of images or encodings, float32 [n, features]; works in batches to save memory."""
    if images.ndim < 3 or len(images) == 0:
        raise UserError(f"images have shape {images.shape}: give at least one image, [n, height, width, 3]")
    sign = _distances if method.encodes else _contents
    return np.concatenate([sign(method, images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)])


def _contents(method: Encryption, images: np.ndarray) -> np.ndarray:
    """Returns features of blocks that no key changes: float32 [n, features]."""
    parts, flat = structure(method, *images.shape[1:3]), flatten(method, images)
    if not parts.group:
        channels = parts.places.reshape(-1, parts.places.shape[-1] // 3, 3)
        boxes = _TABLE[_fold(flat, parts.top)][:, channels].sum(axis=2) % _BOXES
        found = np.zeros((len(images), _BOXES), np.float32)
        np.put_along_axis(found, boxes.reshape(len(images), -1).astype(np.int64), 1, axis=1)
        return found
    folded = _fold(flat, parts.top)
    # Without blocks, a pixel takes the place of a block.
    places = parts.places.reshape(-1, 3) if not method.blocks else parts.places.reshape(len(parts.places), -1)
    means = folded[:, places].mean(axis=-1, dtype=np.float32)
    means = np.sort(means, axis=1) if parts.blocks_move else means
    run = -(-len(places) // _BLOCKS)
    return np.add.reduceat(means, np.arange(0, len(places), run), axis=1) / run


def _distances(method: Encryption, images: np.ndarray) -> np.ndarray:
    """Returns distances between pairs of patches, or of encoded patches: float [n, pairs]."""
    patches = images if images.ndim == 3 else split_blocks(images.astype(np.float32), method.block_size)
    first, second = np.triu_indices(patches.shape[1], 1)
    chosen = np.random.default_rng(0).permutation(len(first))[:_PATCH_PAIRS]
    first, second = first[chosen], second[chosen]
    squares = (patches**2).sum(axis=-1)
    # Inner products need far less memory than the differences of all pairs.
    products = (patches @ patches.swapaxes(1, 2))[:, first, second]
    return np.sqrt(np.maximum(squares[:, first] + squares[:, second] - 2 * products, 0))


def _fold(values: np.ndarray, top: int) -> np.ndarray:
    """Returns |v - top / 2| - 1/2 of uint8 values v, which is the same for a value and its inversion."""
    return np.maximum(values, top - values) - np.uint8(top // 2 + 1)
