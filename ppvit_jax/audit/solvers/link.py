"""Tests if two models, adapted with different keys, come from the same base model, which is unknown.

The hidden units of independently trained models do not correspond to each other, because neither initialization nor
training prefers an order of them. A statistic that compares the hidden units of two unrelated models therefore has the
same distribution after the hidden units of one model are permuted, alike for all rows. This is the null distribution of
a permutation test (Good, "Permutation, Parametric and Bootstrap Tests of Hypotheses", 2005). It preserves each tensor's
values, norms, rank and smoothness, which trained position embeddings always share. Permuting each row separately would
destroy the smoothness, and smoothness alone would then look like a common base.
"""

import dataclasses

import numpy as np
from flax.traverse_util import flatten_dict

from ppvit_jax import models
from ppvit_jax.audit.solvers.weights import Match, match_rows, patch_rows, position_rows
from ppvit_jax.encryption import Permutations
from ppvit_jax.errors import UserError
from ppvit_jax.models import Params

# Threshold in standard deviations above chance. It is high because an assignment over rows of low rank has heavier
# tails than a normal distribution.
_THRESHOLD = 8.0


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A similarity of two models, with its distribution for unrelated models.

    value: the mean cosine; 1 for equal weights.
    chance, deviation: mean and standard deviation under the null distribution.
    """

    value: float
    chance: float
    deviation: float

    @property
    def z(self) -> float:
        """The number of standard deviations above chance."""
        return (self.value - self.chance) / self.deviation if self.deviation else 0.0

    @property
    def linked(self) -> bool:
        """True if chance is ruled out."""
        return self.z > _THRESHOLD


@dataclasses.dataclass(frozen=True, eq=False)
class Link:
    """The verdict on two models of unknown bases, and the evidence.

    linked: True if any of the three statistics rules out chance.
    reason: the verdict in one sentence.
    untouched: similarity of the encoder's kernels, value by value, because no key moves them (a scheme that did would
      prevent this); None if their sizes differ.
    patch, position: similarity of the matched rows of the patch embedding (absolute cosines) and of the position
      embedding, which keys move; None if the sizes differ. A table of rotary angles is the same in all models of a
      family, so `position` is None for it as well.
    relative: permutations from the first key to the second: `adapt(first, relative)` is the second model up to
      fine-tuning. A part is None unless its tensor is linked, or is such a table.
    """

    linked: bool
    reason: str
    untouched: Statistic | None = None
    patch: Statistic | None = None
    position: Statistic | None = None
    relative: Permutations = dataclasses.field(default_factory=Permutations)


def compare(first: Params, second: Params, *, seed: int = 0, draws: int = 30) -> Link:
    """Compares two models with unknown keys and unknown bases.

    Args:
      first, second: parameters of Vision Transformers of any sizes (see `weights.recover` for the tensors).
      seed: seed of the random permutations for the null distribution.
      draws: number of random permutations, at least 2.

    Returns:
      The verdict and the evidence.

    Raises:
      UserError: a model has no patch or position embedding, or has weights that are not finite.
    """
    if draws < 2:
        raise UserError(f"{draws} draws give no null distribution: give at least 2")
    patches, positions = (patch_rows(first), patch_rows(second)), (position_rows(first), position_rows(second))
    if patches[0].shape[1] != patches[1].shape[1]:
        return Link(False, f"the hidden sizes {patches[0].shape[1]} and {patches[1].shape[1]} differ")
    untouched = _untouched(first, second)
    block = pixel = negative = patch = position = None
    if patches[0].shape == patches[1].shape:
        match = match_rows(*patches, signed=True, centered=False)
        patch = against_chance(*patches, match, signed=True, seed=seed, draws=draws)
        if patch.linked:
            pixel, negative = match.order, match.negative
    family = models.recognize(first)
    is_public = family is not None and family.positions in family.fixed
    if positions[0].shape == positions[1].shape:
        match = match_rows(*positions, centered=True)
        if not is_public:
            position = against_chance(*positions, match, signed=False, seed=seed, draws=draws)
        block = match.order if position is None or position.linked else None
    found = {"encoder's kernels": untouched, "patch embedding": patch, "position embedding": position}
    linking = [name for name, statistic in found.items() if statistic and statistic.linked]
    reason = f"more alike than chance allows: {', '.join(linking)}" if linking else "no more alike than by chance"
    return Link(bool(linking), reason, untouched, patch, position, Permutations(block, pixel, negative))


def against_chance(
    first: np.ndarray, second: np.ndarray, match: Match, *, signed: bool, seed: int = 0, draws: int = 30
) -> Statistic:
    """Compares the mean cosine of matched rows with its null distribution under permuted hidden units.

    Args:
      first, second: float64 [rows, hidden].
      match: the result of `match_rows` for these rows: with signs if `signed`, or else with centered rows.
      signed: True if rows may have changed their signs.
      seed: seed of the permutations.
      draws: number of permutations, at least 2.

    Returns:
      The mean cosine, and the mean and standard deviation of the null distribution.
    """
    random = np.random.default_rng(seed)
    null = []
    for _ in range(draws):
        shuffled = second[:, random.permutation(second.shape[1])]
        null.append(match_rows(first, shuffled, signed=signed, centered=not signed).similarity.mean())
    return Statistic(float(match.similarity.mean()), float(np.mean(null)), float(np.std(null, ddof=1)))


def _untouched(first: Params, second: Params) -> Statistic | None:
    """Returns the cosine of the encoder's kernels as one long vector, with its exact null mean and deviation.

    If the hidden units of the second model are permuted by p, the inner product is the sum over i of M[i, p[i]], where
    M holds the inner products of hidden units. Hoeffding gives its mean and variance over all p ("A combinatorial
    central limit theorem", 1951).
    """
    hidden = patch_rows(first).shape[1]
    products, squares = np.zeros((hidden, hidden)), np.zeros(2)
    kernels = [_encoder_kernels(params, hidden) for params in (first, second)]
    for name in kernels[0].keys() & kernels[1].keys():
        one, other = kernels[0][name], kernels[1][name]
        if one.shape == other.shape:
            products += one @ other.T
            squares += (one**2).sum(), (other**2).sum()
    if not squares.all():
        return None
    products /= np.sqrt(squares.prod())
    centered = products - products.mean(0) - products.mean(1)[:, None] + products.mean()
    deviation = np.sqrt((centered**2).sum() / (hidden - 1))
    return Statistic(float(np.trace(products)), float(products.sum() / hidden), float(deviation))


def _encoder_kernels(params: Params, hidden: int) -> dict[str, np.ndarray]:
    """Returns the encoder's kernels by name, float32 [hidden, weights]. Scales and biases are similar in all models."""
    family = models.recognize(params)
    kernels = {}
    for name, array in flatten_dict(params, sep="/").items():
        if family and name.startswith(f"{family.encoder}/") and name.endswith("/kernel"):
            # Hidden units are either the outputs or the inputs of a kernel.
            rows = np.asarray(array, np.float32)
            goes_out = name.endswith(family.encoder_outputs)
            kernels[name] = rows.reshape(-1, hidden).T if goes_out else rows.reshape(hidden, -1)
    return kernels
