"""Known-plaintext attack on random networks: learns from images and their encodings to decode other encodings.

Ridge regression in closed form (Hoerl and Kennard 1970) maps an encoded patch and its place to the plain patch, with
the penalty that generalized cross-validation selects (Golub, Heath and Wahba 1979). If every image has its own patch
order, the patches are first put into one order: the network's offset for each place tells them apart (compare Carlini
et al., arXiv 2108.07256, on NeuraCrypt).
"""

import dataclasses

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist

from ppvit_jax.encryption.permutations import check_size, join_blocks, split_blocks
from ppvit_jax.errors import UserError

_PENALTIES = 10.0 ** np.arange(-8, 5)
# Weight of the degrees of freedom: above 1, because neighboring patches are not independent (Kim and Gu, 2004).
_CAUTION = 1.4
# The smallest number of pairs from which the order of reordered patches can be found.
LEAST_REORDERED = 3
# Number of pairs by which places are matched: more pairs do not help.
_MATCHED_PAIRS = 50
_ROUNDS = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Decoder:
    """A linear map from encodings to images.

    block_size: side of a patch in pixels.
    height, width: size of the images in pixels.
    center, scale: float64 [features], mean and standard deviation by which encoded patches are normalized.
    kernel: float64 [features + patches, values], weights of the encoded patch, and an offset for each place.
    mean: float64 [values], the mean plain patch.
    anchors: float64 [patches, features], a typical normalized encoded patch for each place, by which reordered patches
      are sorted; None if patches come in order.
    """

    block_size: int
    height: int
    width: int
    center: np.ndarray
    scale: np.ndarray
    kernel: np.ndarray
    mean: np.ndarray
    anchors: np.ndarray | None = None

    def decode(self, encodings: np.ndarray) -> np.ndarray:
        """Decodes encodings.

        Args:
          encodings: encodings in one of the shapes that `learn` accepts.

        Returns:
          uint8 [n, height, width, 3], estimates of the plain images.

        Raises:
          UserError: the encodings have another shape than those that the decoder was learned from.
        """
        tokens = _tokens(encodings, self.block_size)
        features = len(self.center)
        patches = len(self.kernel) - features
        if tokens.shape[1:] != (patches, features):
            raise UserError(
                f"encodings of {tokens.shape[1]} patches with {tokens.shape[2]} features do not fit a decoder for "
                f"{patches} patches with {features} features: learn a new decoder"
            )
        normal = (tokens - self.center) / self.scale
        if self.anchors is not None:
            normal = _arrange(normal, self.anchors)
        values = normal @ self.kernel[:features] + self.kernel[features:] + self.mean
        values = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        return join_blocks(values, self.height, self.width, self.block_size)


def learn(plain: np.ndarray, encodings: np.ndarray, block_size: int, *, reordered: bool = False) -> Decoder:
    """Learns a decoder for one key from pairs of images and encodings.

    Args:
      plain: uint8 [n, height, width, 3].
      encodings: float [n, patches, features], patches in row-major order; or float [n, height, width, 3], whose blocks
        are the encoded patches.
      block_size: side of a patch in pixels.
      reordered: True if every image has its own patch order. This needs at least three pairs, and about ten to succeed.

    Returns:
      The decoder.

    Raises:
      UserError: there are too few pairs, or the shapes do not fit.
    """
    least = LEAST_REORDERED if reordered else 1
    if plain.ndim != 4 or len(plain) < least or len(plain) != len(encodings):
        raise UserError(
            f"images have shape {plain.shape} and encodings {encodings.shape}: give at least {least} images, "
            "[n, height, width, 3], and an encoding for each"
        )
    height, width = plain.shape[1:3]
    check_size(height, width, block_size)
    targets = split_blocks(plain, block_size).astype(np.float64)
    tokens = _tokens(encodings, block_size)
    if tokens.shape[:2] != targets.shape[:2]:
        raise UserError(
            f"encodings have {tokens.shape[1]} patches, but images of {height}x{width} have {targets.shape[1]} blocks "
            f"of {block_size}: give the block size that they were encoded with"
        )
    flat = tokens.reshape(-1, tokens.shape[-1])
    center, scale = flat.mean(axis=0), flat.std(axis=0) + 1e-9
    tokens, anchors = (tokens - center) / scale, None
    if reordered:
        # Sort all images by the first one, then by their mean, which represents each place better.
        anchors = _arrange(tokens, tokens[0]).mean(axis=0)
        tokens = _arrange(tokens, anchors)
        order = _places(targets[:_MATCHED_PAIRS], tokens[:_MATCHED_PAIRS])
        tokens = tokens[:, order]
        anchors = tokens.mean(axis=0)
    kernel, mean = _ridge(tokens, targets)
    return Decoder(block_size, height, width, center, scale, kernel, mean, anchors)


def _ridge(tokens: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fits kernel and mean of `Decoder` to sorted tokens [n, patches, features] and patches [n, patches, values]."""
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
        """Returns the score of generalized cross-validation: the error, corrected for the degrees of freedom."""
        lost = penalty / (power + penalty)
        left = len(inputs) - _CAUTION * np.sum(1 - lost)
        return (rest + lost**2 @ energy) / left**2 if left > 0 else np.inf

    penalty = min(_PENALTIES * len(inputs), key=score)
    return basis @ ((np.sqrt(power) / (power + penalty))[:, None] * projected), mean


def _places(targets: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Finds the token that belongs to each place, int [patches], for tokens in one unknown order for all images."""

    # Encoding roughly preserves how much the patch in a place differs between images, so places are compared by that.
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
    """Sorts every image's tokens [n, patches, features] to match the anchors [patches, features]."""
    orders = [linear_sum_assignment(-anchors @ image.T)[1] for image in tokens]
    return np.take_along_axis(tokens, np.stack(orders)[..., None], axis=1)


def _tokens(encodings: np.ndarray, block_size: int) -> np.ndarray:
    """Returns the encoded patches as float64 [n, patches, features]."""
    if encodings.ndim == 4:
        encodings = split_blocks(encodings, block_size)
    if encodings.ndim != 3:
        raise UserError(f"encodings have shape {encodings.shape}: give [n, patches, features] or [n, height, width, 3]")
    return encodings.astype(np.float64)
