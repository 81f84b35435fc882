import json

import numpy as np
import pytest
from helpers.command import ROOT
from PIL import Image

from ppvit_jax import __main__ as commands
from ppvit_jax import data, keys
from ppvit_jax.commands.shared.command_line import run_command
from ppvit_jax.config import load
from ppvit_jax.encryption import decrypt
from ppvit_jax.experiments import figures, table1

ARGUMENTS = [
    "reproduce",
    "table1",
    f"--config={ROOT / 'configs' / 'demo.py'}",
    "--config.image_size=32",
    "--config.data.train_examples=64",
    "--config.data.test_examples=40",
    "--config.batch_size=16",
    "--config.eval_batch_size=40",
    "--config.epochs=2",
    "--config.tensorboard=False",
]
THREE_ARMS = "--arms=plain,bs+ps-adapted,bs+ps-not-adapted"
PAPER = {  # Table I: adapted, not adapted
    "Pixel shuffling": ("99.05", "97.78"),
    "Block scrambling": ("98.93", "94.25"),
    "Block scrambling + pixel shuffling": ("98.98", "72.86"),
}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """The output of three arms, run in two parts."""
    folder = tmp_path_factory.mktemp("output")
    assert run_command(commands.main, [*ARGUMENTS, f"--output={folder}", "--arms=plain"]) == 0
    assert run_command(commands.main, [*ARGUMENTS, f"--output={folder}", THREE_ARMS]) == 0
    return folder


@pytest.mark.slow
def test_table_holds_measured_and_published_values(output):
    table = json.loads((output / "table.json").read_text())
    measured = {arm["arm"]: arm for arm in table["arms"]}
    assert list(measured) == ["plain", "bs+ps-adapted", "bs+ps-not-adapted"]
    assert measured["plain"]["difference_to_plain"] == 0
    # Forty test images: a difference of rounding may change one of them, at most.
    assert abs(measured["bs+ps-adapted"]["difference_to_plain"]) <= 2.5
    lines = (output / "table.md").read_text().splitlines()
    rows = {cells[1]: cells[2:-1] for cells in ([c.strip() for c in line.split("|")] for line in lines if "|" in line)}
    for label, (adapted, not_adapted) in PAPER.items():
        assert (rows[label][1], rows[label][3]) == (adapted, not_adapted)
    assert rows["Pixel shuffling"][0] == rows["Block scrambling"][2] == "not run"
    both = rows["Block scrambling + pixel shuffling"]
    assert both[0] == f"{measured['bs+ps-adapted']['accuracy']:.2f}"
    assert both[2] == f"{measured['bs+ps-not-adapted']['accuracy']:.2f}"
    assert rows["Plain (baseline)"][:2] == [f"{measured['plain']['accuracy']:.2f}", "99.00"]
    assert "epochs: 2 of 64 images, seed 0, 40 test images" in lines[-2]
    for arm in table["arms"]:
        assert [epoch["epoch"] for epoch in arm["epochs"]] == [1, 2]
        assert arm["result"] == json.loads((output / "arms" / arm["arm"] / "result.json").read_text())


@pytest.mark.slow
def test_arms_share_a_key_and_complete_ones_are_not_trained_again(output, capsys):
    fingerprint = keys.load(output / "secret.key").fingerprint
    for arm in ("bs+ps-adapted", "bs+ps-not-adapted"):
        assert json.loads((output / "arms" / arm / "result.json").read_text())["key_fingerprint"] == fingerprint
    before = {path: path.stat().st_mtime_ns for path in output.rglob("checkpoint.npz")}
    assert run_command(commands.main, [*ARGUMENTS, f"--output={output}", THREE_ARMS]) == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("checkpoint.npz")} == before
    printed = capsys.readouterr()
    assert printed.err.count("nothing to do") == 3
    assert (output / "table.md").read_text() in printed.out
    for name in ("table.md", "table.json", "curves.png", "samples.png"):
        assert f"{output / name}\n" in printed.out


@pytest.mark.slow
def test_the_former_spelling_continues_the_same_table(output, capsys):
    table = (output / "table.md").read_text()
    former = ["reproduce", "--table=1", *ARGUMENTS[2:]]
    assert run_command(commands.main, [*former, f"--output={output}", THREE_ARMS]) == 0
    assert (output / "table.md").read_text() == table
    assert capsys.readouterr().err.count("nothing to do") == 3


@pytest.mark.slow
def test_pictures_are_drawn(output):
    for name in ("curves.png", "samples.png"):
        with Image.open(output / name) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        assert min(pixels.shape[:2]) > 500
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


@pytest.mark.slow
def test_samples_are_the_encryptions_of_the_plain_image(output, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "draw_samples", lambda rows, path, block_size: drawn.append((rows, block_size)))
    config = load(ARGUMENTS[2].split("=")[1], ["--config.image_size=32"])
    table1.draw_samples(config, output, data.load(config.data, config.image_size, config.seed))
    ((rows, block_size),) = drawn
    assert [label for label, _ in rows] == ["0", "1", "2"] and block_size == 8
    for _, images in rows:
        assert list(images) == ["plain", "ps", "bs", "bs+ps"]
        for encryption in ("ps", "bs", "bs+ps"):
            permutations = keys.load(output / "secret.key").permutations(encryption, image_size=32, patch_size=8)
            assert (images[encryption] != images["plain"]).any()
            np.testing.assert_array_equal(decrypt(images[encryption], permutations, 8), images["plain"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--arms=plain,rot13"], "unknown arms rot13"), (["--output=/dev/null/x"], "cannot use the output folder")],
)
def test_mistakes_give_one_line(tmp_path, capsys, arguments, message):
    assert run_command(commands.main, [*ARGUMENTS, f"--output={tmp_path}", *arguments]) == 1
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1


def test_arms_are_those_of_the_table():
    adapted = {arm.encryption: f"{arm.paper_accuracy:.2f}" for arm in table1.ARMS if arm.adapt}
    not_adapted = {arm.encryption: f"{arm.paper_accuracy:.2f}" for arm in table1.ARMS if not arm.adapt}
    order = ("ps", "bs", "bs+ps")
    assert [(adapted[e], not_adapted[e]) for e in order] == list(PAPER.values())
    assert not_adapted["none"] == "99.00" and len(table1.ARMS) == 7
