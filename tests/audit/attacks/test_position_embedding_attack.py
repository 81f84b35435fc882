import numpy as np
from helpers.tiny import random_params, tiny_model

from ppvit_jax.audit.attack import Inputs
from ppvit_jax.audit.attacks.position_embedding import ATTACK
from ppvit_jax.encryption import Permutations


def test_an_arrangement_is_scored_only_with_the_truth():
    model = random_params(tiny_model(image_size=32))
    blind = ATTACK.run(Inputs(model=model))
    assert blind.succeeded is None and set(blind.rows[0]) == {"blocks", "seconds"}
    # A random position embedding has no order, whatever the truth; None means that blocks keep their places.
    for block in (None, np.random.default_rng(0).permutation(64)):
        finding = ATTACK.run(Inputs(model=model, permutations=Permutations(block)))
        assert finding.succeeded is False and float(finding.rows[0]["neighbors"]) < 0.3
