"""Tells whether two adapted models with different keys come from the same base, without knowing it.

Between models that were trained independently, the hidden units of one have nothing to do with those of the other: no
training step and no initialisation prefers an order of them. So a statistic that compares the hidden units of two
unrelated models is distributed as it is after the hidden units of one are permuted, alike for all rows: that is the
null distribution here (a permutation test: Good, "Permutation, Parametric and Bootstrap Tests of Hypotheses", 2005). It
keeps each tensor's values, norms, rank and smoothness, which two trained position embeddings always share; permuting
each row on its own would not, and smoothness alone would then look like kinship.
"""

import dataclasses

import numpy as np
from flax.traverse_util import flatten_dict

from ppvit_jax import models
from ppvit_jax.audit.solvers.weights import Match, match_rows, patch_rows, position_rows
from ppvit_jax.encryption import Permutations
from ppvit_jax.errors import UserError
from ppvit_jax.models import Params

# Standard deviations above chance. An assignment over rows of low rank has heavier tails than a normal distribution.
_THRESHOLD = 8.0


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A similarity of two models, and what it is between unrelated ones.

    value: the mean cosine, 1 for the same weights.
    chance, deviation: mean and standard deviation under the null distribution.
    """

    value: float
    chance: float
    deviation: float

    @property
    def z(self) -> float:
        """Standard deviations above chance."""
        return (self.value - self.chance) / self.deviation if self.deviation else 0.0

    @property
    def linked(self) -> bool:
        """True if chance is ruled out."""
        return self.z > _THRESHOLD


@dataclasses.dataclass(frozen=True, eq=False)
class Link:
    """The verdict on two models of unknown bases, and its evidence; None where sizes do not allow a comparison.

    untouched: of the encoder's kernels, which no key moves: they compare value by value. A scheme that moved these as
      well would hide it.
    patch, position: mean cosine of the matched rows of the two tensors that keys move; of absolute values for the patch
      embedding.
    relative: what leads from the first model's key to the second's, `adapt(first, relative)` being the second up to
      fine-tuning; each part is there if its tensor is linked.
    reason: one sentence.
    """

    linked: bool
    reason: str
    untouched: Statistic | None = None
    patch: Statistic | None = None
    position: Statistic | None = None
    relative: Permutations = dataclasses.field(default_factory=Permutations)


def compare(first: Params, second: Params, *, seed: int = 0, draws: int = 30) -> Link:
    """Compares two models of unknown keys and unknown base.

    Args:
      first, second: parameters of Vision Transformers, as for `ppvit_jax.audit.solvers.weights.recover`, of any sizes.
      seed: of the null distribution's random permutations.
      draws: how many of them, at least 2.

    Raises:
      UserError: a model without patch or position embedding, or with weights that are not finite.
    """
    if draws < 2:
        raise UserError(f"{draws} draws give no null distribution: give at least 2")
    patches, positions = (patch_rows(first), patch_rows(second)), (position_rows(first), position_rows(second))
    if patches[0].shape[1] != patches[1].shape[1]:
        return Link(False, f"hidden sizes of {patches[0].shape[1]} and {patches[1].shape[1]}: not of one base")
    untouched = _untouched(first, second)
    block = pixel = negative = patch = position = None
    if patches[0].shape == patches[1].shape:
        match = match_rows(*patches, signed=True, centred=False)
        patch = against_chance(*patches, match, signed=True, seed=seed, draws=draws)
        if patch.linked:
            pixel, negative = match.order, match.negative
    if positions[0].shape == positions[1].shape:
        match = match_rows(*positions, centred=True)
        position = against_chance(*positions, match, signed=False, seed=seed, draws=draws)
        block = match.order if position.linked else None
    found = {"encoder's kernels": untouched, "patch embedding": patch, "position embedding": position}
    linking = [name for name, statistic in found.items() if statistic and statistic.linked]
    reason = f"more alike than chance allows: {', '.join(linking)}" if linking else "no more alike than by chance"
    return Link(bool(linking), reason, untouched, patch, position, Permutations(block, pixel, negative))


def against_chance(
    first: np.ndarray, second: np.ndarray, match: Match, *, signed: bool, seed: int = 0, draws: int = 30
) -> Statistic:
    """The mean cosine of matched rows, and its null distribution by permuted hidden units.

    Args:
      first, second: float64 [rows, hidden].
      match: what `match_rows` found, of absolute cosines if `signed` and of centred rows if not.
      signed: as there.
      seed: of the permutations.
      draws: how many of them, at least 2.
    """
    random = np.random.default_rng(seed)
    null = []
    for _ in range(draws):
        shuffled = second[:, random.permutation(second.shape[1])]
        null.append(match_rows(first, shuffled, signed=signed, centred=not signed).similarity.mean())
    return Statistic(float(match.similarity.mean()), float(np.mean(null)), float(np.std(null, ddof=1)))


def _untouched(first: Params, second: Params) -> Statistic | None:
    """The cosine of the encoder's kernels as one long vector, and its exact null mean and deviation.

    With the hidden units of the second model permuted by p, the inner product is the sum of M[i, p[i]], M being the
    hidden units' inner products: its mean and variance over all p are Hoeffding's ("A combinatorial central limit
    theorem", 1951).
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
    centred = products - products.mean(0) - products.mean(1)[:, None] + products.mean()
    deviation = np.sqrt((centred**2).sum() / (hidden - 1))
    return Statistic(float(np.trace(products)), float(products.sum() / hidden), float(deviation))


def _encoder_kernels(params: Params, hidden: int) -> dict[str, np.ndarray]:
    """The encoder's kernels as float32 [hidden, weights], by name; scales and biases are alike in all models."""
    family = models.recognize(params)
    kernels = {}
    for name, array in flatten_dict(params, sep="/").items():
        if family and name.startswith(f"{family.encoder}/") and name.endswith("/kernel"):
            # The hidden units are what comes in, or what goes out.
            rows = np.asarray(array, np.float32)
            goes_out = name.endswith(family.encoder_outputs)
            kernels[name] = rows.reshape(-1, hidden).T if goes_out else rows.reshape(hidden, -1)
    return kernels
