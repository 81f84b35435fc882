"""An attack as one object: what the attacker has, the inputs that it needs, its run, and its column in the matrix."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Literal, ParamSpec, TypeVar

import numpy as np

from ppvit_jax.encryption import Encryption, Permutations, Secret
from ppvit_jax.models import Params

_P = ParamSpec("_P")
_T = TypeVar("_T")

# The measures of one attempt, by the names that the tables show.
Row = dict[str, str | float]
# Inputs that an attack cannot do without: fields of `Inputs`, and flags that name a file or folder.
Need = Literal["base", "model", "second_model", "plain", "encrypted"]
# Inputs that an attack or its scoring uses where they are there.
Option = Literal["reference", "pairs", "images", "candidates", "plain", "key"]

# A recovered fraction, or a structural similarity, from which on an attack counts as successful.
SUCCESS = 0.5
# Scoring compares no more images than this.
SCORED_IMAGES = 10
_PICTURES = 4


@dataclasses.dataclass(frozen=True)
class Counts:
    """Numbers of images that attacks are tried with, each in increasing order.

    pairs: pairs of an image and its encryption to learn from.
    images: encrypted images to attack.
    candidates: images among which those encrypted are.
    """

    pairs: Sequence[int] = (1, 2, 5, 10, 20)
    images: Sequence[int] = (1, 5, 20, 100)
    candidates: int = 500


@dataclasses.dataclass(frozen=True, eq=False)
class EncryptedImages:
    """Images that are encrypted with one key.

    images: uint8 [n, side, side, 3], or encodings as the method makes them.
    method: with the right block size.
    secret: what the method derived from the key, for the scoring alone; None if it is unknown.
    """

    images: np.ndarray
    method: Encryption
    secret: Secret | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """Everything that attacks run on; what an attack does not need may be None.

    base: parameters of the model that the others are adapted from.
    model: parameters of an adapted model, fine-tuned or not.
    second_model: parameters of a model that is adapted with another key.
    permutations: those that `model` is adapted with, for the scoring alone.
    encrypted: encrypted images.
    plain: uint8 [n, side, side, 3], the plain images of these, in their order.
    noisy: uint8 [n, side, side, 3], `plain` with the noise that the owner added before encrypting; None if none.
    reference: uint8 [m, side, side, 3], other plain images of the same kind.
    counts: numbers of images to try.
    seed: of an attack's random choices.
    brief: leave out progress, and further attempts that only the summary tells of.
    """

    base: Params | None = None
    model: Params | None = None
    second_model: Params | None = None
    permutations: Permutations | None = None
    encrypted: EncryptedImages | None = None
    plain: np.ndarray | None = None
    noisy: np.ndarray | None = None
    reference: np.ndarray | None = None
    counts: Counts = Counts()
    seed: int = 0
    brief: bool = False


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one attack.

    attack: the attack's name.
    rows: the measures; more than one row if the attack was tried with more and less.
    summary: one sentence.
    succeeded: whether it counts as a break; None if nothing tells.
    seconds: time of the attack itself, without the scoring.
    pictures: uint8 [n, side, side, 3] by title, to be shown side by side.
    """

    attack: str
    rows: Sequence[Row]
    summary: str
    succeeded: bool | None
    seconds: float
    pictures: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Column:
    """An attack's column in the matrix of methods by attacks.

    heading: its heading.
    measure: the entry of a finding's rows that it shows.
    place: attacks are tried, and columns ordered, by increasing places.
    row: which of a finding's rows, the one with the lowest measure or the last.
    """

    heading: str
    measure: str
    place: int
    row: Literal["lowest", "last"] = "lowest"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack: one file in `ppvit_jax.audit.attacks`, and one entry in its list.

    name: its name on the command line and in reports.
    attacker_has: what it presumes of the attacker.
    needs: inputs without which it cannot run.
    uses: further inputs that it or its scoring uses where they are there.
    images_read: how many of a folder's encrypted images it is given at most.
    label: the entry of a row that says what the row's measures are of; empty if a finding has one row.
    column: its column in the matrix of methods by attacks.
    run: attacks and scores; raises UserError for inputs that the attack is not built for.
    """

    name: str
    attacker_has: str
    needs: tuple[Need, ...]
    uses: tuple[Option, ...] = ()
    images_read: Callable[[Counts], int] = lambda counts: max(counts.images)
    label: str = ""
    column: Column
    run: Callable[[Inputs], Finding]

    @property
    def on_models(self) -> bool:
        """True for an attack on models, False for one on images."""
        return "model" in self.needs


def timed(solve: Callable[_P, _T], *arguments: _P.args, **options: _P.kwargs) -> tuple[_T, float]:
    """Calls a solver; returns its result and the seconds that it took."""
    started = time.monotonic()
    result = solve(*arguments, **options)
    return result, time.monotonic() - started


def side_by_side(encrypted: np.ndarray, recovered: np.ndarray, plain: np.ndarray | None) -> dict[str, np.ndarray]:
    """Returns the first images of each by title, without those that are no images, for `Finding.pictures`."""
    images = {"encrypted": encrypted, "recovered": recovered} | ({} if plain is None else {"plain": plain})
    return {title: array[:_PICTURES] for title, array in images.items() if array.ndim == 4 and array.dtype == np.uint8}
