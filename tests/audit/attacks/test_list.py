import dataclasses
import typing

import pytest

from ppvit_jax.audit import attack, attacks
from ppvit_jax.audit.attacks import ATTACKS


def test_attacks_differ_in_name_and_column():
    for values in ([one.name for one in ATTACKS], [one.column.place for one in ATTACKS]):
        assert len(set(values)) == len(ATTACKS) > 0
    assert all(attacks.named(one.name) is one for one in ATTACKS)


@pytest.mark.parametrize("entry", ATTACKS, ids=lambda entry: entry.name)
def test_an_attack_names_inputs_that_there_are(entry):
    fields = {field.name for field in dataclasses.fields(attack.Inputs)}
    assert entry.needs and set(entry.needs) <= fields & set(typing.get_args(attack.Need))
    assert set(entry.uses) <= set(typing.get_args(attack.Option))
    assert not set(entry.needs) & set(entry.uses)
