import sys
from pathlib import Path

import pytest

from ppvit_jax import config as configuration
from ppvit_jax.errors import UserError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
DEMO = str(CONFIGS[0].parent / "demo.py")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_loads_and_says_its_command_and_what_to_expect(path):
    config = configuration.load(str(path))
    assert config.keys() == configuration.default_config().keys()
    text = path.read_text()
    assert f"configs/{path.name}" in text and "Command:" in text


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenette"])
def test_the_papers_protocol(name):
    config = configuration.load(str(CONFIGS[0].parent / f"{name}.py"))
    assert (config.model, config.image_size, config.epochs, config.batch_size) == ("ViT-B/16", 224, 15, 32)
    assert (config.encryption, config.adapt, config.augmentation) == ("bs+ps", True, "none")
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.momentum) == ("sgd", 0.001, 0.9)
    assert (optimizer.weight_decay, optimizer.schedule, optimizer.warmup_steps) == (0.0005, "constant", 0)


def test_overrides():
    config = configuration.load(
        DEMO,
        [
            "--config.epochs=7",
            "--config.optimizer.learning_rate=0.5",
            "--config.adapt=False",
            "--config.freeze=('a.*','b')",
            "--config.data.dir=/somewhere",
            "--config.data.in_memory=auto",
        ],
    )
    assert (config.epochs, config.optimizer.learning_rate, config.adapt) == (7, 0.5, False)
    assert (config.freeze, config.data.dir) == (("a.*", "b"), "/somewhere")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.epoch=3", "demo.py with --config.epoch=3: there is no field 'epoch' Did you mean \"epochs\""),
        ("--config.optimizer.lr=1", "no field 'lr'"),
        ("--config.epochs=many", "invalid literal for int.*many"),
        ("--config.epochs=0", "config.epochs is 0: give at least 1"),
        ("--config.seed=-1", "config.seed is -1: give 0 or more"),
        ("--config.encryption=aes", "unknown encryption 'aes': use none or one of bs, ps"),
        ("--config.model=ResNet-50", "unknown model 'ResNet-50'"),
        ("--config.image_size=65", "image size 65 is not a multiple of the patch size 8"),
        ("--config.dtype=float16", "config.dtype is 'float16': use one of 'float32', 'bfloat16', 'float64'"),
        ("--config.head=old", "config.head is 'old'"),
        ("--config.augmentation=mixup", "config.augmentation is 'mixup'"),
        ("--config.optimizer.name=lion", "config.optimizer.name is 'lion'"),
        ("--config.optimizer.schedule=linear", "config.optimizer.schedule is 'linear'"),
        ("--config.optimizer.learning_rate=0.0", "learning_rate is 0.0: give a positive number"),
        ("--config.optimizer.learning_rate=nan", "learning_rate is nan"),
        ("--config.accumulation=3", "batch_size 32 is not a multiple of config.accumulation 3"),
        ("--config.std=(0.5,0.5)", "three numbers"),
        ("--config.std=(0.5,0.5,0.0)", "those of std positive"),
        ("--config.mean=(0.485,0.456,0.406)", "pixel shuffling mixes channels"),
        ("--config.std=(0.229,0.224,0.225)", "pixel shuffling mixes channels"),
        ("--epochs=3", "Unknown command line flag 'epochs'"),
        ("epochs=3", "unknown arguments epochs=3"),
    ],
)
def test_what_makes_no_sense_is_named_in_one_line(override, message):
    with pytest.raises(UserError, match=message) as caught:
        configuration.load(DEMO, [override])
    assert "\n" not in str(caught.value)


def test_constants_of_each_channel_are_allowed_where_nothing_is_adapted():
    for override in ("--config.adapt=False", "--config.encryption=none"):
        configuration.load(DEMO, ["--config.mean=(0.485,0.456,0.406)", override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(: pass", "invalid syntax"),
        ("import nothing_of_this_name", "nothing_of_this_name"),
        ("x = 1", "get_config"),
        (
            "from ppvit_jax.config import default_config as d\n"
            "def get_config():\n    c = d()\n    c.rate = 1\n    return c",
            "no field.*rate|has no attribute.*rate|rate.*locked",
        ),
        ("def get_config():\n    return 5", "'int' object"),
        (
            "from ml_collections import ConfigDict as C\ndef get_config():\n    return C({'seed': 1})",
            "lacks accumulation",
        ),
        ("def get_config():\n    raise RuntimeError('broken inside')", "broken inside"),
    ],
)
def test_a_broken_configuration_file_is_named(tmp_path, monkeypatch, text, message):
    # ml_collections reloads one module for all files; a process of the command line loads only one.
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        configuration.load(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no configuration file"):
        configuration.load(str(tmp_path / "missing.py"))
