"""Dictionary attack: recognizes known images among encrypted ones without any key."""

import numpy as np

from ppvit_jax.audit.attack import SUCCESS, Attack, Column, Finding, Inputs, Row, timed
from ppvit_jax.audit.solvers import dictionary


def run(inputs: Inputs) -> Finding:
    """Runs `dictionary.identify` with all plain images as candidates, in random order.

    Raises:
      UserError: see `dictionary.identify`.
    """
    assert inputs.encrypted is not None and inputs.plain is not None
    method, encrypted = inputs.encrypted.method, inputs.encrypted.images
    # The candidates are shuffled, so that their order does not reveal the answers.
    order = np.random.default_rng(inputs.seed).permutation(len(inputs.plain))
    candidates, truth = inputs.plain[order], np.argsort(order)[: len(encrypted)]
    answer, seconds = timed(dictionary.identify, method, candidates, encrypted)
    # If two candidates are equal, either is a correct answer.
    correct = [(candidates[a] == candidates[b]).all() for a, b in zip(answer.index, truth, strict=True)]
    identified = float(np.mean(correct))
    row: Row = {
        "candidates": len(candidates),
        "encrypted": len(encrypted),
        "identified": identified,
        "by chance": 1 / len(candidates),
        "distance (median)": float(np.median(answer.distance)),
        "of the runner-up": float(np.median(answer.runner_up)),
        "seconds": seconds,
    }
    summary = f"{identified:.1%} of {len(encrypted)} encrypted images identified among {len(candidates)} candidates"
    if not inputs.brief and not method.encodes and (equal := dictionary.duplicates(method, encrypted)):
        summary += f"; {sum(map(len, equal))} encrypted images visibly equal another one, or its mirror image"
    return Finding(ATTACK.name, [row], summary, identified >= SUCCESS, seconds)


ATTACK = Attack(
    name="dictionary",
    attacker_has="the encryption method and candidate images, which may include the encrypted ones; no key",
    needs=("plain", "encrypted"),
    uses=("candidates", "key"),
    images_read=lambda counts: counts.candidates,
    label="candidates",
    column=Column("dictionary: identified", "identified", place=4),
    run=run,
)
