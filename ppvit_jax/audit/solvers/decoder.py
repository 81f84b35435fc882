"""Learns from images and their encodings to decode further ones: a known-plaintext attack on random networks.

Closed-form ridge regression (Hoerl and Kennard 1970) from an encoded patch, and where it lies, to the patch, with the
penalty that generalised cross-validation prefers (Golub, Heath and Wahba 1979). Patches in an order of each image's own
are put in one order first: what the network adds to each place tells them apart (compare Carlini et al., arXiv
2108.07256, on NeuraCrypt).
"""

import dataclasses

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist

from ppvit_jax.encryption.permutations import check_size, join_blocks, split_blocks
from ppvit_jax.errors import UserError

_PENALTIES = 10.0 ** np.arange(-8, 5)
# How much the freedom to fit counts: above 1, as neighbouring patches are no independent samples (Kim and Gu, 2004).
_CAUTION = 1.4
# Pairs without which the order of reordered patches is not found.
LEAST_REORDERED = 3
# Places are matched by these pairs alone: more tell no more.
_MATCHED_PAIRS = 50
_ROUNDS = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Decoder:
    """A linear map from encodings to images.

    block_size: side of a patch in pixels.
    height, width: of the images in pixels.
    centre, scale: float64 [features], what an encoded patch is normalised by.
    kernel: float64 [features + patches, values of a patch]: of the encoded patch, and an offset for each place.
    mean: float64 [values of a patch].
    anchors: float64 [patches, features], normalised encoded patches that tell the place; None if they come in order.
    """

    block_size: int
    height: int
    width: int
    centre: np.ndarray
    scale: np.ndarray
    kernel: np.ndarray
    mean: np.ndarray
    anchors: np.ndarray | None = None

    def decode(self, encodings: np.ndarray) -> np.ndarray:
        """Estimates of the images, uint8 [n, height, width, 3], of encodings as `learn` takes them.

        Raises:
          UserError: encodings of another shape.
        """
        tokens = _tokens(encodings, self.block_size)
        features = len(self.centre)
        patches = len(self.kernel) - features
        if tokens.shape[1:] != (patches, features):
            raise UserError(
                f"encodings of {tokens.shape[1]} patches with {tokens.shape[2]} features do not fit a decoder for "
                f"{patches} with {features}: learn one for them"
            )
        normal = (tokens - self.centre) / self.scale
        if self.anchors is not None:
            normal = _arrange(normal, self.anchors)
        values = normal @ self.kernel[:features] + self.kernel[features:] + self.mean
        values = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        return join_blocks(values, self.height, self.width, self.block_size)


def learn(plain: np.ndarray, encodings: np.ndarray, block_size: int, *, reordered: bool = False) -> Decoder:
    """Learns a decoder of one key from pairs.

    Args:
      plain: uint8 [n, height, width, 3].
      encodings: floating point [n, patches, features], patches in row-major order; or [n, height, width, 3], of which
        the blocks are the encoded patches.
      block_size: side of a patch in pixels.
      reordered: every image's patches are in an order of its own. It takes some ten pairs then, and at least three.

    Raises:
      UserError: too few pairs, or shapes that do not fit.
    """
    least = LEAST_REORDERED if reordered else 1
    if plain.ndim != 4 or len(plain) < least or len(plain) != len(encodings):
        raise UserError(
            f"images of shape {plain.shape} and encodings of {encodings.shape}: give at least {least} [height, width, "
            "3], and an encoding for each"
        )
    height, width = plain.shape[1:3]
    check_size(height, width, block_size)
    targets = split_blocks(plain, block_size).astype(np.float64)
    tokens = _tokens(encodings, block_size)
    if tokens.shape[:2] != targets.shape[:2]:
        raise UserError(
            f"{tokens.shape[1]} encoded patches are not the {targets.shape[1]} of images of {height}x{width} with "
            f"patches of {block_size}: give the block size that they were encoded with"
        )
    flat = tokens.reshape(-1, tokens.shape[-1])
    centre, scale = flat.mean(axis=0), flat.std(axis=0) + 1e-9
    tokens, anchors = (tokens - centre) / scale, None
    if reordered:
        # One image is a poor guide to the places, and the mean of all in its order a better one.
        anchors = _arrange(tokens, tokens[0]).mean(axis=0)
        tokens = _arrange(tokens, anchors)
        order = _places(targets[:_MATCHED_PAIRS], tokens[:_MATCHED_PAIRS])
        tokens = tokens[:, order]
        anchors = tokens.mean(axis=0)
    kernel, mean = _ridge(tokens, targets)
    return Decoder(block_size, height, width, centre, scale, kernel, mean, anchors)


def _ridge(tokens: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The kernel and the mean of `Decoder`, from normalised tokens [n, patches, features] in order and patches."""
    count, patches, features = tokens.shape
    inputs = np.hstack([tokens.reshape(-1, features), np.tile(np.eye(patches), (count, 1))])
    targets = targets.reshape(-1, targets.shape[-1])
    mean = targets.mean(axis=0)
    targets = targets - mean
    power, basis = np.linalg.eigh(inputs.T @ inputs)
    kept = power > 1e-10 * power[-1]
    power, basis = power[kept], basis[:, kept]
    projected = basis.T @ (inputs.T @ targets) / np.sqrt(power)[:, None]
    energy = np.sum(projected**2, axis=1)
    rest = max(np.sum(targets**2) - energy.sum(), 0)

    def score(penalty: float) -> float:
        """Generalised cross-validation: the error, enlarged by the freedom to fit."""
        lost = penalty / (power + penalty)
        left = len(inputs) - _CAUTION * np.sum(1 - lost)
        return (rest + lost**2 @ energy) / left**2 if left > 0 else np.inf

    penalty = min(_PENALTIES * len(inputs), key=score)
    return basis @ ((np.sqrt(power) / (power + penalty))[:, None] * projected), mean


def _places(targets: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The number of the token that lies in each place, int [patches], of tokens in one unknown order for all images."""

    # From image to image a place changes as much before as after: by distances between the images there.
    def change(patches: np.ndarray) -> np.ndarray:
        distances = np.stack([pdist(place) for place in patches.swapaxes(0, 1)])
        return distances / distances.mean()

    order = linear_sum_assignment(cdist(change(targets), change(tokens), "sqeuclidean"))[1]
    features = tokens.shape[-1]
    for _ in range(_ROUNDS):
        kernel, mean = _ridge(tokens[:, order], targets)
        guessed = tokens @ kernel[:features] + mean
        wanted, offered = (part.swapaxes(0, 1).reshape(part.shape[1], -1) for part in (targets, guessed))
        cost = cdist(wanted, offered, "sqeuclidean")
        previous, order = order, linear_sum_assignment(cost)[1]
        if (order == previous).all():
            break
    return order


def _arrange(tokens: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Every image's tokens [n, patches, features] in the order of the anchors [patches, features]."""
    orders = [linear_sum_assignment(-anchors @ image.T)[1] for image in tokens]
    return np.take_along_axis(tokens, np.stack(orders)[..., None], axis=1)


def _tokens(encodings: np.ndarray, block_size: int) -> np.ndarray:
    """float64 [n, patches, features]."""
    if encodings.ndim == 4:
        encodings = split_blocks(encodings, block_size)
    if encodings.ndim != 3:
        raise UserError(f"encodings of shape {encodings.shape}: give [n, patches, features] or [n, height, width, 3]")
    return encodings.astype(np.float64)
