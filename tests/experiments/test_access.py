import json

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.command import ROOT
from helpers.tiny import compiled
from PIL import Image

from ppvit_jax import __main__ as commands
from ppvit_jax import checkpoint, data, keys, models
from ppvit_jax.command_line import run_command
from ppvit_jax.config import load
from ppvit_jax.data.preprocess import preprocess
from ppvit_jax.encryption import encrypt
from ppvit_jax.experiments import access

OVERRIDES = [
    "--config.image_size=32",
    "--config.data.train_examples=320",
    "--config.data.test_examples=100",
    # Those of the tests of Table I, which compile the same programs.
    "--config.batch_size=16",
    "--config.eval_batch_size=40",
    "--config.epochs=1",
    "--config.tensorboard=False",
]
CONFIG = str(ROOT / "configs" / "digits.py")
ARGUMENTS = [f"--config={CONFIG}", *OVERRIDES]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("access")
    assert run_command(commands.main, ["reproduce", "access", *ARGUMENTS, "--wrong-keys=3", f"--output={folder}"]) == 0
    return folder


def _rows(output):
    content = json.loads((output / "access.json").read_text())
    return {(row["model"], row["images"]): row["accuracies"] for row in content["rows"]}


@pytest.mark.slow
def test_the_right_key_gives_the_accuracy_of_the_run(output):
    rows = _rows(output)
    for arm, row in (("bs+ps-adapted", ("adapted", "encrypted with the right key")), ("plain", ("plain", "plain"))):
        result = json.loads((output / "arms" / arm / "result.json").read_text())
        assert rows[row] == [100 * result["test_accuracy"]]
    assert len(rows) == 7 and [len(accuracies) for accuracies in rows.values()] == [1, 3, 3, 3, 1, 1, 1]


@pytest.mark.slow
def test_every_accuracy_equals_an_independent_computation(output):
    config = load(CONFIG, OVERRIDES)
    dataset = data.load(config.data, 32, config.seed)
    images = np.stack([dataset.test.fetch(index) for index in range(len(dataset.test))])
    images = np.asarray(preprocess(jnp.asarray(images), 32))
    model = models.parse_name("ViT-Micro/8", image_size=32, num_classes=10)
    apply = compiled(models.build(model)).apply
    right = keys.load(output / "secret.key").permutations("bs+ps", image_size=32, patch_size=8)
    others = [access.wrong_key(0, n).permutations("bs+ps", image_size=32, patch_size=8) for n in range(3)]
    expected = {
        ("adapted", "encrypted with the right key"): [(right.block, right.pixel)],
        ("adapted", "right blocks, wrong pixels"): [(right.block, other.pixel) for other in others],
        ("adapted", "wrong blocks, right pixels"): [(other.block, right.pixel) for other in others],
        ("adapted", "encrypted with a wrong key"): [(other.block, other.pixel) for other in others],
        ("adapted", "plain"): [(None, None)],
        ("plain", "plain"): [(None, None)],
        ("plain", "encrypted"): [(right.block, right.pixel)],
    }
    rows = _rows(output)
    for (name, label), tried in expected.items():
        arm = "bs+ps-adapted" if name == "adapted" else "plain"
        arrays, _ = checkpoint.read(output / "arms" / arm / "checkpoint.npz")
        params = checkpoint.to_params(arrays, model, keep_head=True)
        for (block, pixel), accuracy in zip(tried, rows[name, label], strict=True):
            encrypted = encrypt(images, access.Permutations(block, pixel), 8).astype(np.float32) / 127.5 - 1
            answers = np.asarray(apply(params, encrypted)).argmax(-1)
            # Rounding may change one prediction in a hundred.
            assert abs(100 * (answers == dataset.test.labels).mean() - accuracy) <= 1


@pytest.mark.slow
def test_repeating_trains_nothing_and_prints_the_same(output, capsys):
    before = {path: path.stat().st_mtime_ns for path in output.rglob("checkpoint.npz")}
    assert len(before) == 2
    text = (output / "access.md").read_text()
    assert run_command(commands.main, ["reproduce", "access", *ARGUMENTS, "--wrong-keys=3", f"--output={output}"]) == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("checkpoint.npz")} == before
    assert (output / "access.md").read_text() == text and text in capsys.readouterr().out


@pytest.mark.slow
def test_table_1_in_the_same_folder_uses_its_models(output, capsys):
    arguments = ["reproduce", "table1", *ARGUMENTS, f"--output={output}", "--arms=plain,bs+ps-adapted"]
    assert run_command(commands.main, arguments) == 0
    assert capsys.readouterr().err.count("nothing to do") == 2


@pytest.mark.slow
def test_the_seed_determines_the_wrong_keys(output):
    content = json.loads((output / "access.json").read_text())
    assert content["wrong_keys"] == [access.wrong_key(0, number).fingerprint for number in range(3)]
    assert content["right_key"] == keys.load(output / "secret.key").fingerprint
    fingerprints = {access.wrong_key(seed, number).fingerprint for seed in range(3) for number in range(3)}
    assert len(fingerprints | {content["right_key"]}) == 10


@pytest.mark.slow
def test_the_picture_is_drawn(output):
    with Image.open(output / "access.png") as picture:
        assert min(picture.size) > 400 and len(np.unique(np.asarray(picture).reshape(-1, 4), axis=0)) > 50


def test_zero_wrong_keys_are_refused(tmp_path, capsys):
    arguments = ["reproduce", "access", *ARGUMENTS, f"--output={tmp_path}", "--wrong-keys=0"]
    assert run_command(commands.main, arguments) == 1
    assert capsys.readouterr().err == "error: --wrong-keys is 0: give at least 1\n"
