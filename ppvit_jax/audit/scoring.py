"""Scores of attacks: the recovered fraction of a key, and the similarity of recovered images to the plain ones.

An attacker can see by eye if a picture is rotated, flipped, inverted or has its channels exchanged. Results are
therefore scored up to the 8 symmetries of a square, the 6 channel orders and inversion, the same for all images.
Neighboring pairs and the largest component are Gallagher's measures (CVPR 2012), as Chuman and Kiya use them.
"""

import dataclasses
import itertools

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ppvit_jax.audit.solvers.correlation import correlate
from ppvit_jax.audit.solvers.symmetry import SYMMETRIES, transform
from ppvit_jax.encryption.method import Secret
from ppvit_jax.encryption.permutations import split_blocks


@dataclasses.dataclass(frozen=True)
class Places:
    """Fractions of a key that were recovered, each between 0 and 1.

    blocks: fraction of blocks in their exact places.
    values: fraction of values in their exact places inside their blocks, with the correct inversion.
    neighbors: fraction of neighboring pairs of blocks that are neighbors in the same direction in the plain image.
    component: size of the largest component connected by such pairs, as a fraction of all blocks.
    """

    blocks: float
    values: float
    neighbors: float
    component: float

    @property
    def exact(self) -> bool:
        """True if the key is recovered completely."""
        return self.blocks == self.values == 1


@dataclasses.dataclass(frozen=True)
class Picture:
    """Similarity of recovered images to the plain ones, as a mean over images.

    ssim: structural similarity (Wang et al. 2004), at most 1.
    psnr: peak signal-to-noise ratio in dB; infinite for equal images.
    encrypted_ssim: structural similarity of the encrypted images to the plain ones, for comparison; NaN for encodings.
    """

    ssim: float
    psnr: float
    encrypted_ssim: float


def compare_places(estimate: Secret, truth: Secret, size: int, block_size: int) -> Places:
    """Compares an estimate of a secret with the true secret.

    Args:
      estimate, truth: secrets of `Gather`: "index", int [size * size * 3], and optionally "mask".
      size: height and width of the images in pixels.
      block_size: side of the blocks in pixels; 1 for an encryption without blocks.

    Returns:
      The recovered fractions under the best symmetry, channel order and inversion.
    """
    guess, true = (_split(secret, size, block_size) for secret in (estimate, truth))
    best: tuple[float, Places | None] = (-1.0, None)
    side = size // block_size
    for flip, turn in SYMMETRIES:
        blocks = transform(np.arange(side * side).reshape(side, side, 1), flip, turn).ravel()
        blocks_right = blocks[guess.block] == true.block
        for order in itertools.permutations(range(3)):
            inside = np.arange(block_size**2 * 3).reshape(block_size, block_size, 3)
            inside = transform(inside, flip, turn)[..., list(order)].ravel()
            moved = inside[guess.inside] == true.inside
            same = guess.negative == true.negative
            values = max(np.mean(moved & same), np.mean(moved & ~same))
            total = blocks_right.mean() + values
            if total > best[0]:
                right, component = _neighbors(blocks[guess.block], true.block, side)
                best = total, Places(float(blocks_right.mean()), float(values), right, component)
    assert best[1] is not None
    return best[1]


def align(recovered: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Rotates, flips, inverts and recolors all recovered images alike, for the least squared error.

    Args:
      recovered, plain: uint8 [n, side, side, 3].

    Returns:
      uint8 [n, side, side, 3], the aligned images.
    """
    # A few images suffice to tell the symmetries apart.
    few, target = recovered[:4], plain[:4].astype(np.float32)
    best: tuple[float, tuple] = (np.inf, ())
    for flip, turn in SYMMETRIES:
        turned = transform(few, flip, turn, first=1)
        for order, negative in itertools.product(itertools.permutations(range(3)), (False, True)):
            seen = turned[..., list(order)].astype(np.float32)
            error = float(np.mean(np.square((255 - seen if negative else seen) - target)))
            if error < best[0]:
                best = error, (flip, turn, order, negative)
    flip, turn, order, negative = best[1]
    aligned = np.ascontiguousarray(transform(recovered, flip, turn, first=1)[..., list(order)])
    return 255 - aligned if negative else aligned


def compare_images(recovered: np.ndarray, plain: np.ndarray, encrypted: np.ndarray | None = None) -> Picture:
    """Compares aligned images (see `align`) with the plain ones.

    Args:
      recovered, plain: uint8 [n, side, side, 3].
      encrypted: uint8 [n, side, side, 3], also compared with the plain images; encodings are ignored.
    """

    from skimage import metrics

    def similarity(images: np.ndarray) -> float:
        values = [metrics.structural_similarity(a, b, channel_axis=2) for a, b in zip(plain, images, strict=True)]
        return float(np.mean(values))

    # The ratio of equal images is infinite.
    with np.errstate(divide="ignore"):
        ratios = [metrics.peak_signal_noise_ratio(a, b) for a, b in zip(plain, recovered, strict=True)]
    before = np.nan
    if encrypted is not None and encrypted.shape == plain.shape and encrypted.dtype == np.uint8:
        before = similarity(encrypted)
    return Picture(similarity(recovered), float(np.mean(ratios)), before)


@dataclasses.dataclass(frozen=True)
class Likeness:
    """Likeness of values in the same places of all blocks of plain images: mean correlations, from -1 to 1.

    The attack on pixel shuffling tells neighbors from the channels of one pixel by these. It needs more images where
    channels are more alike than neighbors.

    neighbors: correlation of neighboring pixels, in one channel.
    channels: correlation of the channels of one pixel.
    """

    neighbors: float
    channels: float


def measure_likeness(plain: np.ndarray, block_size: int) -> Likeness:
    """Measures the likeness of values inside the blocks of plain images.

    Args:
      plain: uint8 [n, side, side, 3].
      block_size: side of a block in pixels, at least 2.
    """
    values = split_blocks(plain, block_size)
    # Element [i, j, c, k, l, d] is the correlation of pixel (i, j), channel c, with pixel (k, l), channel d.
    correlation = correlate(values.reshape(-1, values.shape[-1])).reshape((block_size, block_size, 3) * 2)
    below = np.einsum("ijcijc->ijc", correlation[1:, :, :, :-1])
    right = np.einsum("ijcijc->ijc", correlation[:, 1:, :, :, :-1])
    channels = np.einsum("ijcijd->ijcd", correlation)[..., [0, 0, 1], [1, 2, 2]]
    return Likeness((below.mean() + right.mean()).item() / 2, channels.mean().item())


@dataclasses.dataclass(frozen=True)
class _Split:
    block: np.ndarray
    inside: np.ndarray
    negative: np.ndarray


def _split(secret: Secret, size: int, block_size: int) -> _Split:
    """Returns the plain block of every encrypted block, and the place inside it of each value."""
    plain = np.empty((size * size * 3, 2), np.int64)
    numbers = split_blocks(np.arange(size * size * 3).reshape(size, size, 3), block_size)
    plain[numbers] = np.moveaxis(np.indices(numbers.shape), 0, -1)
    index = split_blocks(np.asarray(secret["index"]).reshape(size, size, 3), block_size)
    mask = np.asarray(secret.get("mask", np.zeros(size * size * 3, np.uint8))).reshape(size, size, 3)
    source = plain[index]
    return _Split(source[:, 0, 0], source[..., 1], split_blocks(mask, block_size) > 0)


def _neighbors(guess: np.ndarray, true: np.ndarray, side: int) -> tuple[float, float]:
    """Returns `Places.neighbors` and `Places.component`, from the guessed and true cell of each block: int [blocks]."""
    if side == 1:
        return 1.0, 1.0
    put = np.empty(side * side, np.int64)
    put[true] = guess
    put = put.reshape(side, side)
    across = (put[:, 1:] == put[:, :-1] + 1) & (put[:, :-1] % side != side - 1)
    down = put[1:] == put[:-1] + side
    cells = np.arange(side * side).reshape(side, side)
    one = np.concatenate([cells[:, :-1][across], cells[:-1][down]])
    other = np.concatenate([cells[:, 1:][across], cells[1:][down]])
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(side * side, side * side))
    labels = connected_components(graph, directed=False)[1]
    return len(one) / (2 * side * (side - 1)), float(np.bincount(labels).max() / side**2)
