"""Weights attack: reads the key from an adapted model and the public checkpoint that it was adapted from."""

import numpy as np

from ppvit_jax.audit.attack import SUCCESS, Attack, Column, Finding, Inputs, Row, timed
from ppvit_jax.audit.solvers import link, weights
from ppvit_jax.audit.solvers.weights import Match


def run(inputs: Inputs) -> Finding:
    """Runs `weights.recover`. If the key is unknown, the score is how clearly rows match compared with chance."""
    base, model, truth = inputs.base, inputs.model, inputs.permutations
    assert base is not None and model is not None
    recovered, seconds = timed(weights.recover, base, model)
    drift = weights.drift(base, model, recovered.permutations)
    rows: list[Row] = []
    fractions, summaries, clear, linked = [], [], [], []
    for tensor, match, select_rows, signed, changed in (
        ("blocks (position embedding)", recovered.block, weights.position_rows, False, drift["position_embedding"]),
        ("values (patch embedding)", recovered.pixel, weights.patch_rows, True, drift["patch_embedding"]),
    ):
        row: Row = {"rows of": tensor, "number": len(match.order)}
        if truth is not None:
            fraction = _fraction(match, truth.pixel, truth.negative) if signed else _fraction(match, truth.block, None)
            fractions.append(fraction)
            summaries.append(f"{fraction:.1%} of the {tensor}")
            row["recovered"] = fraction
        else:
            # The rows of unrelated models can be matched, too: a match only counts if it is better than by chance.
            chance = link.against_chance(select_rows(base), select_rows(model), match, signed=signed)
            linked.append(chance.linked)
            clear.append(float(np.mean(match.margin > 0)))
        row |= {
            "similarity (median)": float(np.median(match.similarity)),
            "margin (median)": float(np.median(match.margin)),
            "margin (lowest)": float(match.margin.min()),
            "changed by fine-tuning": changed,
            "seconds, both": seconds,
        }
        rows.append(row)
    if truth is not None:
        succeeded = min(fractions) >= SUCCESS
        summary = f"{' and '.join(summaries)} recovered"
    else:
        succeeded = all(linked)
        summary = (
            f"{clear[0]:.1%} of the blocks and {clear[1]:.1%} of the values match one row better than any other, "
            f"{'far better than' if succeeded else 'no better than'} by chance"
        )
    return Finding(ATTACK.name, rows, summary, succeeded, seconds)


def _fraction(match: Match, order: np.ndarray | None, negative: np.ndarray | None) -> float:
    """Returns the fraction of rows that are matched correctly; None stands for the identity."""
    correct = match.order == (np.arange(len(match.order)) if order is None else order)
    return float(np.mean(correct & (match.negative == (False if negative is None else negative))))


ATTACK = Attack(
    name="weights",
    attacker_has="the public base checkpoint and the adapted model, fine-tuned or not; no image",
    needs=("base", "model"),
    uses=("key",),
    label="rows of",
    column=Column("weights: rows recovered", "recovered", place=0),
    run=run,
)
