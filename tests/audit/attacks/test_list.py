import dataclasses
import typing

import pytest

from ppvit_jax.audit import attacks
from ppvit_jax.audit.attack import Inputs, Need, Option


def test_attacks_differ_in_name_and_column():
    for values in ({attack.name for attack in attacks.ATTACKS}, {attack.column.place for attack in attacks.ATTACKS}):
        assert len(values) == len(attacks.ATTACKS) > 0
    assert all(attacks.named(attack.name) is attack for attack in attacks.ATTACKS)


@pytest.mark.parametrize("attack", attacks.ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_names_inputs_that_exist(attack):
    fields = {field.name for field in dataclasses.fields(Inputs)}
    assert attack.needs and set(attack.needs) <= fields & set(typing.get_args(Need))
    assert set(attack.uses) <= set(typing.get_args(Option))
    assert not set(attack.needs) & set(attack.uses)
