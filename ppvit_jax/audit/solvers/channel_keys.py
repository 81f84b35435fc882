"""Ciphertext-only attack on pixel-based encryption (PE), which has a key for each pixel.

Pixels keep their places. The channels of each pixel change places and some are inverted, alike in all images.
Neighboring pixels are similar, so the relative key (one of 48) with the smallest difference over the images is probably
right. Regions grow along the most certain relative keys, and are compared along their whole borders (Boruvka's spanning
tree, with evidence summed). Finally each pixel's key is chosen again by its neighbors. Chang and Case's attacks
("Attacks on image encryption schemes for privacy-preserving deep neural networks", arXiv 2004.13263) use the same
facts: differences survive inversion, and a reused key reveals more.
"""

import itertools

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

from ppvit_jax.audit.solvers.structure import check_images
from ppvit_jax.encryption import PixelEncryption, Secret
from ppvit_jax.encryption.blockwise import undo
from ppvit_jax.encryption.pixel_encryption import CHANNEL_ORDERS
from ppvit_jax.errors import UserError

# The largest number of images that are compared, which bounds the time; from more images, a sample is drawn.
_IMAGES = 100
_SWEEPS = 6
_CHANNELS = np.arange(3)


def solve(method: PixelEncryption, encrypted: np.ndarray, *, seed: int = 0) -> Secret:
    """Estimates the secret of images that share their keys.

    Args:
      method: pixel-based encryption with keys "shared"; for keys "per_image", see `solve_each`.
      encrypted: uint8 [images, height, width, 3], all encrypted with one secret.
      seed: seed of the sample of images, if there are more than are compared.

    Returns:
      {"index": int32 [values], "mask": uint8 [values]}, with which the method decrypts. It is known up to one channel
      order and one inversion of the whole image, which ciphertexts do not reveal.

    Raises:
      UserError: the method has a key for every image, or `encrypted` are not images.
    """
    if method.per_image:
        raise UserError(f"encryption {method.spec} has a key for every image: attack each image separately")
    return _solve(encrypted, method.colour, seed)


def solve_each(method: PixelEncryption, encrypted: np.ndarray) -> list[Secret]:
    """Estimates the keys of each image separately.

    Args:
      method: pixel-based encryption with any keys.
      encrypted: uint8 [images, height, width, 3].

    Returns:
      A secret for each image. `PixelEncryption` with keys="shared" decrypts the image with it.

    Raises:
      UserError: `encrypted` are not images.
    """
    return [_solve(image[None], method.colour, 0) for image in encrypted]


def _solve(encrypted: np.ndarray, color: bool, seed: int) -> Secret:
    check_images(encrypted)
    chosen = np.random.default_rng(seed).permutation(len(encrypted))[:_IMAGES]
    images = encrypted[np.sort(chosen)]
    group = _Keys(color)
    pairs, costs = _compare(images)
    keys = np.zeros(images.shape[1] * images.shape[2], np.int64)
    if len(pairs):
        keys = _sweep(group, pairs, costs, _grow(group, pairs, costs, len(keys)))
    return group.secret(keys, images)


class _Keys:
    """The group of channel orders and inversions: key k maps values v to sign[k, c] * v[order[k, c]] in channel c."""

    def __init__(self, color: bool):
        orders = CHANNEL_ORDERS if color else CHANNEL_ORDERS[:1]
        pairs = list(itertools.product(orders, itertools.product((1, -1), repeat=3)))
        self.order = np.array([order for order, _ in pairs])
        self.sign = np.array([sign for _, sign in pairs])
        self.negative = (self.sign < 0).astype(np.int64)
        digits, bits = np.array([72, 24, 8]), np.array([4, 2, 1])
        codes = self.order @ digits + self.negative @ bits
        number = np.zeros(codes.max() + 1, np.int64)
        number[codes] = np.arange(len(codes))
        # compose[g, h] is key h followed by key g.
        order = self.order[:, self.order].swapaxes(0, 1)
        sign = self.negative[:, None] ^ self.negative[:, self.order].swapaxes(0, 1)
        self.compose = number[order @ digits + sign @ bits]
        self.inverse = np.argmin(self.compose, axis=1)

    def seen(self, costs: np.ndarray, here: np.ndarray, there: np.ndarray) -> np.ndarray:
        """Converts costs [pairs, 3, 3, 2] of encrypted pixels to those of pixels decrypted with these keys."""
        order, other = self.order[here][:, :, None, None], self.order[there][:, None, :, None]
        flip = self.negative[here][:, :, None] ^ self.negative[there][:, None, :]
        return costs[np.arange(len(costs))[:, None, None, None], order, other, flip[..., None] ^ np.arange(2)]

    def relative(self, costs: np.ndarray) -> np.ndarray:
        """Returns the cost of each relative key: [pairs, keys] from the costs of channels [pairs, 3, 3, 2]."""
        return costs[:, _CHANNELS, self.order, self.negative].sum(axis=-1)

    def secret(self, keys: np.ndarray, images: np.ndarray) -> Secret:
        """Returns the secret, given the key that decrypts each pixel."""
        order, negative = self.order[keys], self.negative[keys]
        values = images.reshape(len(images), -1, 3)
        plain = np.take_along_axis(values, order[None], axis=2) ^ (negative * 255).astype(np.uint8)
        # The channels of natural images are similar: invert a whole channel if it then correlates with the first.
        deviation = plain.reshape(-1, 3) - plain.mean(axis=(0, 1))
        scatter = deviation[:, 0] @ deviation[:, 1:]
        negative = negative ^ np.concatenate([[0], scatter < 0]).astype(np.int64)
        back = (np.arange(len(keys))[:, None] * 3 + order).ravel().astype(np.int32)
        return undo({"index": back, "mask": negative.astype(np.uint8).ravel() * np.uint8(255)})


def _compare(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns pairs of neighboring pixels, int64 [pairs, 2], and their costs, float32 [pairs, 3, 3, 2].

    A cost is the summed difference between a channel of one pixel and a channel of the other, as it is or inverted.
    """
    height, width = images.shape[1:3]
    centered = np.ascontiguousarray(np.moveaxis(images, -1, 0).astype(np.int16) * 2 - 255)
    number = np.arange(height * width).reshape(height, width)
    pairs, costs = [], []
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1, :], np.s_[1:, :])):
        pairs.append(np.stack([number[here].ravel(), number[there].ravel()], axis=1))
        cost = np.empty((3, 3, 2, len(pairs[-1])), np.float32)
        for one, other, negative in itertools.product(range(3), range(3), range(2)):
            value, against = centered[one][:, *here], centered[other][:, *there]
            difference = np.abs(value + against if negative else value - against)
            cost[one, other, negative] = difference.sum(axis=0, dtype=np.int32).ravel()
        costs.append(np.moveaxis(cost, -1, 0))
    return np.concatenate(pairs), np.concatenate(costs)


def _grow(group: _Keys, pairs: np.ndarray, costs: np.ndarray, pixels: int) -> np.ndarray:
    """Finds the key of each pixel by growing regions: int64 [pixels]."""
    keys, region = np.zeros(pixels, np.int64), np.arange(pixels)
    # The part of a difference that is quantization, in the doubled gray levels of `_compare`.
    floor = 0.1 * np.median(group.relative(costs).min(axis=1)) + 1
    summed, length = costs, np.ones(len(pairs), np.int64)
    while len(pairs):
        relative = group.relative(summed)
        best = relative.argmin(axis=1)
        lowest = np.partition(relative, 1, axis=1)[:, :2] if relative.shape[1] > 1 else relative
        sure = length * np.log((lowest[:, 1] + floor * length) / (lowest[:, 0] + floor * length)) + 1e-9
        count = region.max() + 1
        both = np.concatenate([pairs[:, 0], pairs[:, 1]])
        surest = np.zeros(count)
        np.maximum.at(surest, both, np.tile(sure, 2))
        chosen = (sure == surest[pairs[:, 0]]) | (sure == surest[pairs[:, 1]])
        chosen &= sure >= np.median(sure[chosen])
        joined, moved = _join(group, pairs[chosen], best[chosen], sure[chosen], count)
        keys = group.compose[moved[region], keys]
        summed = group.seen(summed, moved[pairs[:, 0]], moved[pairs[:, 1]])
        region = joined[region]
        pairs, summed, length = _merge(joined[pairs], summed, length)
    return keys


def _join(
    group: _Keys, pairs: np.ndarray, relative: np.ndarray, sure: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Joins regions along a forest of pairs; returns the new number of each region, and the key applied to it."""
    graph = coo_array((1 / sure, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    tree = minimum_spanning_tree(graph).tocoo()
    joined = connected_components(tree, directed=False)[1]
    # An extra node is the root: it leads to one region of each component, from which keys are composed outward.
    first = np.unique(joined, return_index=True)[1]
    start = np.concatenate([tree.row, np.full(len(first), count)])
    rooted = coo_array((np.ones(len(start)), (start, np.concatenate([tree.col, first]))), shape=(count + 1, count + 1))
    order, parent = breadth_first_order(rooted, count, directed=False)
    key_of = {(i, j): key for (i, j), key in zip(pairs.tolist(), relative.tolist(), strict=True)}
    moved = [0] * (count + 1)
    compose, inverse = group.compose.tolist(), group.inverse.tolist()
    parents = parent.tolist()
    for node in order[1:].tolist():
        above = parents[node]
        if above < count:
            key = key_of.get((above, node))
            moved[node] = compose[moved[above]][inverse[key_of[node, above]] if key is None else key]
    return joined, np.array(moved[:count])


def _merge(pairs: np.ndarray, costs: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums the costs and lengths of all borders between the same two regions, and drops borders inside a region."""
    apart = pairs[:, 0] != pairs[:, 1]
    pairs, costs, length = pairs[apart], costs[apart], length[apart]
    turned = pairs[:, 0] > pairs[:, 1]
    costs = np.where(turned[:, None, None, None], costs.swapaxes(1, 2), costs)
    pairs = np.sort(pairs, axis=1)
    pairs, number = np.unique(pairs, axis=0, return_inverse=True)
    number = number.ravel()
    collect = coo_array(
        (np.ones(len(number), np.float32), (number, np.arange(len(number)))), shape=(len(pairs), len(number))
    )
    collect = collect.tocsr()
    summed = (collect @ costs.reshape(len(number), 18)).reshape(-1, 3, 3, 2)
    return pairs, summed, (collect @ length).astype(np.int64)


def _sweep(group: _Keys, pairs: np.ndarray, costs: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Chooses the key of each pixel again by its neighbors, alternating between the two colors of a chessboard."""
    pixels = len(keys)
    here, there = np.concatenate([pairs, pairs[:, ::-1]]).T
    both = np.concatenate([costs, costs.swapaxes(1, 2)])
    collect = coo_array(
        (np.ones(len(here), np.float32), (here, np.arange(len(here)))), shape=(pixels, len(here))
    ).tocsr()
    width = np.max(np.abs(pairs[:, 1] - pairs[:, 0]), initial=1)
    white = (np.arange(pixels) // width + np.arange(pixels) % width) % 2
    for color in np.arange(2 * _SWEEPS) % 2:
        seen = group.seen(both, np.zeros(len(here), np.int64), keys[there])
        summed = (collect @ seen.reshape(len(here), 18)).reshape(-1, 3, 3, 2)
        # summed[pixel, channel, target, inverted]: the cost of using the channel as the picture's target channel.
        cost = summed[:, group.order, _CHANNELS, group.negative].sum(axis=-1)
        best = np.where(cost.min(axis=1) < cost[np.arange(pixels), keys], cost.argmin(axis=1), keys)
        keys = np.where(white == color, best, keys)
    return keys
