"""Position-embedding attack: reassembles the grid of blocks from an adapted position embedding alone."""

import numpy as np

from ppvit_jax.audit import scoring
from ppvit_jax.audit.attack import SUCCESS, Attack, Column, Finding, Inputs, Row, timed
from ppvit_jax.audit.solvers import position_embedding
from ppvit_jax.audit.solvers.weights import position_rows
from ppvit_jax.encryption import Permutations
from ppvit_jax.encryption.blockwise import make_secret


def run(inputs: Inputs) -> Finding:
    """Runs `position_embedding.solve`, and scores the result if the key's permutations are known."""
    assert inputs.model is not None
    block, seconds = timed(position_embedding.solve, position_rows(inputs.model))
    row: Row = {"blocks": len(block), "seconds": seconds}
    if inputs.permutations is None:
        return Finding(ATTACK.name, [row], "found an arrangement; add --key to score it", None, seconds)
    side, truth = round(len(block) ** 0.5), inputs.permutations.block
    truth = np.arange(len(block)) if truth is None else truth
    estimate, secret = (make_secret(Permutations(order), side, side, 1) for order in (block, truth))
    places = scoring.compare_places(estimate, secret, side, 1)
    row |= {
        "blocks in place": places.blocks,
        "neighbors": places.neighbors,
        "largest component": places.component,
    }
    summary = f"{places.blocks:.1%} of the blocks in place, {places.neighbors:.1%} of the neighboring pairs"
    return Finding(ATTACK.name, [row], summary, places.neighbors >= SUCCESS, seconds)


ATTACK = Attack(
    name="position-embedding",
    attacker_has="the adapted model alone",
    needs=("model",),
    uses=("key",),
    column=Column("position embedding: neighbors", "neighbors", place=1),
    run=run,
)
