"""Declaration of an attack: its inputs, the function that runs it, its result, and its column in the matrix."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Literal, ParamSpec, TypeVar

import numpy as np

from ppvit_jax.encryption import Encryption, Permutations, Secret
from ppvit_jax.models import Params

_P = ParamSpec("_P")
_T = TypeVar("_T")

# Measures of one attempt, keyed by the names that the tables show.
Row = dict[str, str | float]
# Inputs that an attack requires: fields of `Inputs`, and flags of the command that name a file or folder.
Need = Literal["base", "model", "second_model", "plain", "encrypted"]
# Optional inputs of an attack or of its scoring.
Option = Literal["reference", "pairs", "images", "candidates", "plain", "key"]

# An attack succeeds if the recovered fraction, or the structural similarity, reaches this value.
SUCCESS = 0.5
# The largest number of images that scoring compares.
SCORED_IMAGES = 10
_PICTURES = 4


@dataclasses.dataclass(frozen=True)
class Counts:
    """Numbers of images to try attacks with.

    pairs: numbers of known pairs (an image and its encryption), in increasing order.
    images: numbers of encrypted images to attack, in increasing order.
    candidates: number of images among which the dictionary attack looks for the encrypted ones.
    """

    pairs: Sequence[int] = (1, 2, 5, 10, 20)
    images: Sequence[int] = (1, 5, 20, 100)
    candidates: int = 500


@dataclasses.dataclass(frozen=True, eq=False)
class EncryptedImages:
    """Images that are encrypted with one key.

    images: uint8 [n, side, side, 3], or encodings as `method` returns them.
    method: the encryption, with its block size.
    secret: the secret that `method` derived from the key, only used for scoring; None if it is unknown.
    """

    images: np.ndarray
    method: Encryption
    secret: Secret | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """Inputs of all attacks. Inputs that an attack does not need may be None.

    base: parameters of the model that the other two are adapted from.
    model: parameters of an adapted model, fine-tuned or not.
    second_model: parameters of a model that is adapted with a second key.
    permutations: the permutations that `model` is adapted with, only used for scoring.
    encrypted: the encrypted images.
    plain: uint8 [n, side, side, 3], the plain images of `encrypted`, in the same order.
    noisy: uint8 [n, side, side, 3], `plain` with the noise that the owner added before encrypting; None without noise.
    reference: uint8 [m, side, side, 3], other plain images with similar content.
    counts: numbers of images to try.
    seed: seed of an attack's random choices.
    brief: print no progress, and skip attempts that only the summary mentions.
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

    attack: name of the attack.
    rows: the measures, one row for each attempt (such as each number of pairs).
    summary: the result in one sentence.
    succeeded: True if the attack reached `SUCCESS`; None if it cannot be scored.
    seconds: duration of the attack, without scoring.
    pictures: images to show side by side, uint8 [n, side, side, 3], by title.
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

    heading: heading of the column.
    measure: the entry of a finding's rows that the column shows.
    place: sort key: attacks run, and columns appear, in increasing order of place.
    row: the row of a finding that is shown, either the one with the lowest measure or the last one.
    """

    heading: str
    measure: str
    place: int
    row: Literal["lowest", "last"] = "lowest"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack: one file in `ppvit_jax.audit.attacks`, and one entry in its list.

    name: name on the command line and in reports.
    attacker_has: the data that the attacker is assumed to have.
    needs: required inputs.
    uses: optional inputs of the attack or of its scoring.
    images_read: returns the largest number of encrypted images that the attack reads from a folder.
    label: the entry that tells a finding's rows apart; empty if a finding has one row.
    column: the attack's column in the matrix of methods by attacks.
    run: runs the attack and scores it; raises UserError for inputs that the attack does not support.
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
        """True for an attack on models, False for an attack on images."""
        return "model" in self.needs


def timed(solve: Callable[_P, _T], *arguments: _P.args, **options: _P.kwargs) -> tuple[_T, float]:
    """Calls a solver, and returns its result and its duration in seconds."""
    started = time.monotonic()
    result = solve(*arguments, **options)
    return result, time.monotonic() - started


def side_by_side(encrypted: np.ndarray, recovered: np.ndarray, plain: np.ndarray | None) -> dict[str, np.ndarray]:
    """Returns the first few images by title, for `Finding.pictures`; leaves out encodings, which are not images."""
    images = {"encrypted": encrypted, "recovered": recovered} | ({} if plain is None else {"plain": plain})
    return {title: array[:_PICTURES] for title, array in images.items() if array.ndim == 4 and array.dtype == np.uint8}
