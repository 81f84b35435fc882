import json

import numpy as np
import pytest
from helpers.command import ROOT, make_key
from PIL import Image

from ppvit_jax import __main__ as commands
from ppvit_jax.command_line import run_command
from ppvit_jax.encryption import METHODS
from ppvit_jax.experiments import adaptation_table

ARGUMENTS = [
    "reproduce",
    "adaptation",
    f"--config={ROOT / 'configs' / 'digits.py'}",
    "--config.image_size=16",
    "--config.data.train_examples=320",
    "--config.data.test_examples=100",
    "--config.eval_batch_size=100",
    "--config.epochs=1",
    "--config.tensorboard=False",
]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adaptation")
    # The key is fixed, because the loss of a model that is not adapted depends on it.
    arguments = ["--rows=etc:shared=True;le;color-neuracrypt", f"--config.key_file={make_key(folder, 1)}"]
    assert run_command(commands.main, [*ARGUMENTS, *arguments, f"--output={folder}"]) == 0
    return folder


@pytest.mark.slow
def test_adapted_models_lose_no_accuracy(output):
    runs = {run["run"]: run for run in json.loads((output / "adaptation.json").read_text())["runs"]}
    assert list(runs) == [
        "plain",
        "etc-shared-True-adapted",
        "etc-shared-True-not-adapted",
        "le-not-adapted",
        "color-neuracrypt-not-adapted",
    ]
    plain = runs["plain"]["result"]
    adapted = runs["etc-shared-True-adapted"]["result"]
    # Rounding may change one of the hundred predictions.
    assert abs(adapted["test_accuracy"] - plain["test_accuracy"]) <= 0.01
    assert adapted["train_loss"] == pytest.approx(plain["train_loss"], abs=1e-4)
    for name in runs:
        if name.endswith("not-adapted"):
            assert abs(runs[name]["result"]["train_loss"] - plain["train_loss"]) > 2e-3
    for run in runs.values():
        assert run["accuracy"] == 100 * run["result"]["test_accuracy"]


@pytest.mark.slow
def test_the_table_and_the_picture_show_the_results(output):
    lines = (output / "adaptation.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    cells = {row[1].strip("`"): row[2:] for row in rows}
    assert cells["le"][:2] == ["cannot be adapted", ""] and float(cells["etc:shared=True"][0]) > 0
    assert rows[2][0] == METHODS["etc"].title
    with Image.open(output / "adaptation.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 100


def test_every_encryption_that_a_vision_transformer_takes_is_in_the_table():
    assert {spec.partition(":")[0] for spec in adaptation_table.SPECS} == set(METHODS) - {"neuracrypt"}
    absorbed = {spec for spec in adaptation_table.SPECS if adaptation_table.is_absorbed(spec, 64, 8)}
    assert absorbed == {"bs", "ps", "bs+ps", "restricted", "np", "bs+ps+np", "bs+pps", "etc:shared=True"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows=np;rot13"], "unknown encryption 'rot13'"),
        (["--config.model=ResNet-18", "--config.encryption=none"], "has no patches"),
    ],
)
def test_mistakes_give_one_line(tmp_path, capsys, arguments, message):
    assert run_command(commands.main, [*ARGUMENTS, f"--output={tmp_path}", *arguments]) == 1
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1


def test_a_table_without_a_configuration_is_refused(tmp_path, capsys):
    assert run_command(commands.main, ["reproduce", "adaptation", f"--output={tmp_path}"]) == 1
    assert "needs a configuration" in capsys.readouterr().err
