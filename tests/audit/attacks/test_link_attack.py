from helpers.tiny import random_params, tiny_model

from ppvit_jax.adaptation import adapt
from ppvit_jax.audit.attack import Inputs
from ppvit_jax.audit.attacks.link import ATTACK
from ppvit_jax.keys import SecretKey


def test_models_of_one_base_are_linked_and_others_are_not():
    config = tiny_model(image_size=32)
    base, foreign = random_params(config), random_params(config, seed=9)
    keys = [SecretKey(bytes([n] * 32)).permutations("bs+ps", image_size=32, patch_size=4) for n in (1, 2)]
    model = adapt(base, keys[0])
    assert ATTACK.run(Inputs(model=model, second_model=adapt(base, keys[1]))).succeeded
    assert not ATTACK.run(Inputs(model=model, second_model=adapt(foreign, keys[1]))).succeeded
