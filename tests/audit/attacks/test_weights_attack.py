from helpers.tiny import random_params, tiny_model

from ppvit_jax.adaptation import adapt
from ppvit_jax.audit.attack import Inputs
from ppvit_jax.audit.attacks.weights import ATTACK
from ppvit_jax.keys import SecretKey


def test_weights_are_scored_with_and_without_the_truth():
    config = tiny_model(image_size=32)
    base = random_params(config)
    keys = [SecretKey(bytes([n] * 32)) for n in (1, 2)]
    truth, wrong = (key.permutations("bs+ps+np", image_size=32, patch_size=4) for key in keys)
    model = adapt(base, truth)
    finding = ATTACK.run(Inputs(base=base, model=model, permutations=truth))
    assert finding.succeeded and [row["recovered"] for row in finding.rows] == [1, 1]
    assert not ATTACK.run(Inputs(base=base, model=model, permutations=wrong)).succeeded
    unscored = ATTACK.run(Inputs(base=base, model=model))
    assert unscored.succeeded and "recovered" not in unscored.rows[0]
    foreign = random_params(config, seed=5)
    assert not ATTACK.run(Inputs(base=foreign, model=model, permutations=truth)).succeeded
    assert not ATTACK.run(Inputs(base=foreign, model=model)).succeeded
