import json
import re
import shutil

import numpy as np
import pytest
from helpers.command import ROOT
from PIL import Image

from ppvit_jax import __main__ as commands
from ppvit_jax import data, keys
from ppvit_jax.command_line import run_command
from ppvit_jax.config import load
from ppvit_jax.encryption import decrypt
from ppvit_jax.experiments import figures, table1
from ppvit_jax.training import experiment

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
THREE_ARMS = ["plain", "bs+ps-adapted", "bs+ps-not-adapted"]
PAPER = {  # Table I: adapted, not adapted
    "Pixel shuffling": ("99.05", "97.78"),
    "Block scrambling": ("98.93", "94.25"),
    "Block scrambling + pixel shuffling": ("98.98", "72.86"),
}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """The output of the three default arms, run in two parts."""
    folder = tmp_path_factory.mktemp("output")
    assert run_command(commands.main, [*ARGUMENTS, f"--output={folder}", "--arms=plain"]) == 0
    assert run_command(commands.main, [*ARGUMENTS, f"--output={folder}"]) == 0
    return folder


@pytest.mark.slow
def test_table_holds_measured_and_published_values(output):
    table = json.loads((output / "table.json").read_text())
    measured = {arm["arm"]: arm for arm in table["arms"]}
    assert list(measured) == THREE_ARMS
    assert measured["plain"]["difference_to_plain"] == 0
    # Forty test images: a difference of rounding may change one of them, at most.
    assert abs(measured["bs+ps-adapted"]["difference_to_plain"]) <= 2.5
    lines = (output / "table.md").read_text().splitlines()
    rows = {cells[1]: cells[2:-1] for cells in ([c.strip() for c in line.split("|")] for line in lines if "|" in line)}
    both = rows["Block scrambling + pixel shuffling"]
    assert (both[1], both[3]) == PAPER["Block scrambling + pixel shuffling"]
    assert not rows.keys() & {"Pixel shuffling", "Block scrambling"} and "not run" not in "".join(lines)
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
    assert run_command(commands.main, [*ARGUMENTS, f"--output={output}"]) == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("checkpoint.npz")} == before
    printed = capsys.readouterr()
    assert printed.err.count("nothing to do") == 3
    assert printed.out.startswith("3 of 7 arms: --arms=all trains the paper's whole table\n")
    assert (output / "table.md").read_text() in printed.out
    for name in ("table.md", "table.json", "curves.png", "samples.png"):
        assert f"{output / name}\n" in printed.out


@pytest.mark.slow
def test_the_former_spelling_continues_the_same_table(output, capsys):
    table = (output / "table.md").read_text()
    former = ["reproduce", "--table=1", *ARGUMENTS[2:]]
    assert run_command(commands.main, [*former, f"--output={output}"]) == 0
    assert (output / "table.md").read_text() == table
    assert capsys.readouterr().err.count("nothing to do") == 3


@pytest.mark.slow
def test_all_arms_make_the_papers_whole_table_and_keep_those_that_are_complete(output, tmp_path, monkeypatch, capsys):
    """The four further arms are trained by a stand-in: what they learn does not matter here."""
    train, trained = experiment.run, []
    complete = {arm: json.loads((output / "arms" / arm / "result.json").read_text()) for arm in THREE_ARMS}

    def train_or_copy(config, workdir, dataset, key_folder):
        if workdir.name in THREE_ARMS:
            return train(config, workdir, dataset, key_folder=key_folder)
        trained.append(workdir.name)
        workdir.mkdir()
        shutil.copy(output / "arms" / "plain" / "metrics.jsonl", workdir)
        return complete["plain"] | {"test_accuracy": 0.5}

    folder = tmp_path / "output"
    shutil.copytree(output, folder)
    monkeypatch.setattr(experiment, "run", train_or_copy)
    assert run_command(commands.main, [*ARGUMENTS, f"--output={folder}", "--arms=all"]) == 0
    assert trained == [arm.name for arm in table1.ARMS[3:]]
    printed = capsys.readouterr()
    assert printed.err.count("nothing to do") == 3 and "--arms=all" not in printed.out
    table = {arm["arm"]: arm["result"] for arm in json.loads((folder / "table.json").read_text())["arms"]}
    assert list(table) == [arm.name for arm in table1.ARMS]
    assert {arm: table[arm] for arm in THREE_ARMS} == complete
    text = (folder / "table.md").read_text()
    assert "not run" not in text
    for label, (adapted, not_adapted) in PAPER.items():
        assert re.search(rf"\| {re.escape(label)} \| \d+\.\d\d \| {adapted} \| \d+\.\d\d \| {not_adapted} \|", text)


@pytest.mark.slow
def test_a_table_says_which_arm_of_an_encryption_is_not_run(output):
    arm = table1.ARMS[4]
    result = json.loads((output / "arms" / "plain" / "result.json").read_text())
    assert f"| Pixel shuffling | not run | 99.05 | {100 * result['test_accuracy']:.2f} | 97.78 |" in table1.markdown(
        {arm: result}
    )


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
    assert [label for label, _ in rows] == ["astronaut", "cat", "coffee"] and block_size == 8
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
