import json

from ppvit_jax.config import default_config
from ppvit_jax.training.public_settings import public_settings


def test_fields_that_only_the_owner_may_see_are_left_out():
    config = {
        "epochs": 3,
        "key_file": "/home/owner/secret.key",
        "passphrase_file": "/home/owner/pass.txt",
        "data": {"name": "cifar10", "keys": [1], "access_token": "t", "token_drop": "t"},
        "monkey": "stays",
    }
    assert public_settings(config) == {"epochs": 3, "data.name": "cifar10", "monkey": "stays"}


def test_urls_lose_what_may_be_a_token():
    config = {"checkpoint": "https://me:pass@host.org/a/b.npz?sig=1#x", "freeze": ["see http://a.b/c?d=e, and more"]}
    assert public_settings(config) == {
        "checkpoint": "https://host.org/a/b.npz",
        "freeze": ["see http://a.b/c and more"],
    }


def test_every_other_field_of_the_configuration_is_shown():
    config = json.loads(default_config().to_json())
    shown = public_settings(config)
    assert config.keys() - {name.partition(".")[0] for name in shown} == {"key_file", "passphrase_file"}
    assert shown["optimizer.learning_rate"] == 0.001
