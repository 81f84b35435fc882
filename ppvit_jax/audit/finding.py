"""What an attack found, and what its attacker has."""

import dataclasses
from typing import Any

import numpy as np

KNOWLEDGE = {
    "weights": "the public base checkpoint and the adapted model, fine-tuned or not; no image",
    "known-plaintext": "the method and some pairs of an image and its encryption; then encrypted images alone",
    "ciphertext-only": "the method and encrypted images of one key; no plain one of them",
    "dictionary": "the method and candidate images, among which those encrypted may be; no key",
    "link": "two adapted models of different keys; no base and no image",
    "position-embedding": "the adapted model alone",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one attack found.

    attack: a key of `KNOWLEDGE`.
    rows: the measures, by their names; more than one where the attack was tried with more and less.
    summary: one sentence.
    succeeded: whether it counts as a break; None where nothing that was given tells.
    seconds: of the attack itself, without the scoring.
    pictures: by title, uint8 [n, side, side, 3], to be shown side by side.
    """

    attack: str
    rows: tuple[dict[str, Any], ...]
    summary: str
    succeeded: bool | None
    seconds: float
    pictures: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
