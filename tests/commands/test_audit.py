import itertools
import json

import pytest
from helpers.command import make_key, run_ppvit
from helpers.photographs import crops
from helpers.tiny import random_params, tiny_model
from PIL import Image

from ppvit_jax import __main__ as commands
from ppvit_jax import checkpoint
from ppvit_jax.audit import attacks, report
from ppvit_jax.audit.attack import Attack, Column, Finding
from ppvit_jax.commands.audit import EXIT_BROKEN
from ppvit_jax.errors import UserError

SIZE, BLOCK = 64, 8


def _photographs(folder, count=14, size=SIZE):
    for number, image in enumerate(crops(count, size)):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Plain and encrypted photographs, a base checkpoint, and models of two keys."""
    folder = tmp_path_factory.mktemp("audit")
    _photographs(folder / "plain")
    config = tiny_model(image_size=32)
    checkpoint.write(folder / "base.npz", random_params(config), checkpoint.Metadata(image_size=32))
    checkpoint.write(folder / "other.npz", random_params(config, seed=7), checkpoint.Metadata(image_size=32))
    for number in (1, 2):
        key = make_key(folder, number)
        files = [f"--checkpoint={folder / 'base.npz'}", f"--output={folder / f'model{number}.npz'}"]
        assert run_ppvit("adapt", f"--key={key}", "--image-size=32", *files) == 0
    sizes = [f"--image-size={SIZE}", f"--patch-size={BLOCK}"]
    files = [f"--input={folder / 'plain'}", f"--output={folder / 'encrypted'}"]
    assert run_ppvit("encrypt", f"--key={folder / '1.key'}", *sizes, *files) == 0
    return folder


def _arguments(folder, *names):
    known = {
        "base": f"--base={folder / 'base.npz'}",
        "model": f"--model={folder / 'model1.npz'}",
        "second": f"--model={folder / 'model2.npz'}",
        "plain": f"--plain={folder / 'plain'}",
        "encrypted": f"--encrypted={folder / 'encrypted'}",
        "key": f"--key={folder / '1.key'}",
        "images": "--images=6",
    }
    return [known[name] for name in names]


@pytest.mark.slow
def test_everything_in_one_report(folder, tmp_path, capsys):
    arguments = _arguments(folder, "base", "model", "second", "plain", "encrypted", "key", "images")
    compared = ["--methods", "bs", "np", "pe"]
    assert run_ppvit("audit", "all", *arguments, *compared, f"--output={tmp_path / 'report'}") == 0
    content = json.loads((tmp_path / "report" / "audit.json").read_text())
    found = {entry["attack"]: entry for entry in content["attacks"]}
    assert set(found) == {
        "weights",
        "known-plaintext",
        "ciphertext-only",
        "dictionary",
        "link",
        "position-embedding",
    }
    for name in ("weights", "known-plaintext", "ciphertext-only", "dictionary", "link"):
        assert found[name]["succeeded"] is True, name
    # A random position embedding has no order.
    assert found["position-embedding"]["succeeded"] is False
    assert found["ciphertext-only"]["rows"][0]["blocks in place"] == 1
    assert content["not_run"] == {} and content["note"] == report.CAVEAT
    text = (tmp_path / "report" / "audit.md").read_text()
    assert report.CAVEAT in text and "![" in text and "## Methods by attacks" in text
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == ["bs", "np", "pe"]
    # The first column shows the rows of the weights, the last the images from ciphertexts alone.
    assert rows[0].startswith("| `bs` | 1 |") and rows[0].endswith("| 1 |")
    for picture in ("known-plaintext.png", "ciphertext-only.png"):
        with Image.open(tmp_path / "report" / picture) as image:
            assert min(image.size) > 300
    printed = capsys.readouterr().out
    assert text in printed


@pytest.mark.slow
def test_what_is_missing_is_said(folder, tmp_path, capsys):
    arguments = [*_arguments(folder, "base", "model"), f"--output={tmp_path / 'report'}", "--methods"]
    assert run_ppvit("audit", "all", *arguments) == 0
    assert "Methods by attacks" not in (tmp_path / "report" / "audit.md").read_text()
    content = json.loads((tmp_path / "report" / "audit.json").read_text())
    assert set(content["not_run"]) == {"known-plaintext", "ciphertext-only", "dictionary", "link"}
    assert content["not_run"]["link"] == "it needs a second --model"
    assert content["not_run"]["dictionary"] == "it needs --plain and --encrypted"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack", "names"),
    [
        ("weights", ("base", "model")),
        ("known-plaintext", ("plain", "encrypted")),
        ("dictionary", ("plain", "encrypted")),
        ("link", ("model", "second")),
    ],
)
def test_a_pipeline_can_fail_on_it(attack, names, folder, capsys):
    arguments = _arguments(folder, *names)
    assert run_ppvit("audit", attack, *arguments) == 0
    assert "**yes**" in capsys.readouterr().out
    for wanted in ("any", attack):
        with pytest.raises(SystemExit) as status:
            run_ppvit("audit", attack, *arguments, f"--fail-on={wanted}")
        assert status.value.code == EXIT_BROKEN
        assert f"{attack} succeeded" in capsys.readouterr().err
    other = "weights" if attack != "weights" else "link"
    assert run_ppvit("audit", attack, *arguments, f"--fail-on={other}") == 0


def test_a_private_base_does_not_fail_the_pipeline(folder):
    arguments = [f"--base={folder / 'other.npz'}", *_arguments(folder, "model", "key"), "--fail-on=any"]
    assert run_ppvit("audit", "weights", *arguments) == 0


@pytest.mark.slow
def test_methods_are_compared(tmp_path, capsys):
    arguments = ["--plain=photographs", f"--image-size={SIZE}", f"--patch-size={BLOCK}", "--keys=2", "--images=4"]
    arguments += ["--candidates=8", "--pairs=1,2", "--methods", "bs", "le", "etc:shared=True", "ele"]
    assert run_ppvit("audit", "methods", *arguments, f"--output={tmp_path}") == 0
    content = json.loads((tmp_path / "matrix.json").read_text())
    assert {(row["method"], row["repetition"]) for row in content["rows"]} >= {("bs", 0), ("bs", 1), ("le", 1)}
    assert {"method": "ele", "attack": "ciphertext-only"}.items() <= content["not_run"][-1].items()
    text = (tmp_path / "matrix.md").read_text()
    assert all(f"| `{name}` |" in text for name in ("bs", "le", "etc:shared=True", "ele"))
    assert (tmp_path / "ciphertext-only.png").exists() and text in capsys.readouterr().out


@pytest.mark.slow
def test_every_key_attacks_every_draw_of_images(tmp_path, capsys):
    arguments = ["--plain=photographs", f"--image-size={SIZE}", f"--patch-size={BLOCK}", "--keys=2", "--draws=3"]
    arguments += ["--images=4", "--candidates=8", "--pairs=1", "--methods", "bs", "--attacks=ciphertext-only"]
    assert run_ppvit("audit", "methods", *arguments, f"--output={tmp_path}") == 0
    content = json.loads((tmp_path / "matrix.json").read_text())
    assert {(row["draw"], row["repetition"]) for row in content["rows"]} == set(itertools.product(range(3), range(2)))
    # A draw has the same images under every key, and each draw has others.
    assert len({row["neighbors alike"] for row in content["rows"]}) == 3
    text = capsys.readouterr().out
    assert "2 keys, 3 draws of images, seed 0" in text and "Median and range over the keys and draws." in text


def test_methods_of_a_tuned_model(folder, tmp_path):
    """The key makes the model plain, and new keys adapt it again."""
    arguments = [*_arguments(folder, "base", "model", "key"), "--attacks=weights,link", "--keys=2", "--seed=3"]
    assert run_ppvit("audit", "methods", *arguments, "--methods", "bs+ps", "np", "pe", f"--output={tmp_path}") == 0
    content = json.loads((tmp_path / "matrix.json").read_text())
    recovered = [row["recovered"] for row in content["rows"] if row["attack"] == "weights"]
    assert len(recovered) == 8 and set(recovered) == {1.0}
    assert {entry["method"] for entry in content["not_run"]} == {"pe"}


@pytest.fixture
def brightness(monkeypatch):
    """Adds an attack to the list, which is all of the program that knows it."""

    def run(inputs):
        rows = [{"step": step, "brightness": inputs.encrypted.images.mean() + step} for step in (1, 2)]
        return Finding("brightness", rows, f"{len(inputs.plain)} images are bright", True, 0.5)

    column = Column("brightness: mean", "brightness", place=3, row="last")
    attack = Attack(
        name="brightness",
        attacker_has="eyes",
        needs=("plain", "encrypted"),
        uses=("candidates",),
        images_read=lambda counts: counts.candidates,
        label="step",
        column=column,
        run=run,
    )
    monkeypatch.setattr(attacks, "ATTACKS", (*attacks.ATTACKS, attack))


def test_a_new_attack_is_one_entry_of_the_list(brightness, folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_ppvit("audit", "--help")
    assert "the attacker has eyes" in capsys.readouterr().out
    arguments = [*_arguments(folder, "plain", "encrypted"), "--candidates=3"]
    assert run_ppvit("audit", "brightness", *arguments, "--fail-on=weights") == 0
    assert "| brightness | eyes | 3 images are bright | **yes** | 0.5 |" in capsys.readouterr().out
    with pytest.raises(SystemExit) as status:
        run_ppvit("audit", "brightness", *arguments, "--fail-on=brightness")
    assert status.value.code == EXIT_BROKEN
    # It takes its own flags alone, and requires those that it needs.
    for wrong in (["--images=3", *arguments], arguments[1:]):
        with pytest.raises((SystemExit, UserError)):
            commands.main(["audit", "brightness", *wrong])


@pytest.mark.slow
def test_a_new_attack_is_in_the_report_and_the_matrix(brightness, folder, tmp_path):
    arguments = [*_arguments(folder, "plain", "encrypted", "images"), "--candidates=3", "--methods", "bs", "np"]
    assert run_ppvit("audit", "all", *arguments, f"--output={tmp_path / 'report'}") == 0
    content = json.loads((tmp_path / "report" / "audit.json").read_text())
    (entry,) = [entry for entry in content["attacks"] if entry["attack"] == "brightness"]
    assert entry["attacker_has"] == "eyes" and [row["step"] for row in entry["rows"]] == [1, 2]
    text = (tmp_path / "report" / "audit.md").read_text()
    # The column comes after that of the known pairs, whose place is the same, and before the dictionary's.
    assert "| method | known plaintext: SSIM | brightness: mean | dictionary: identified |" in text
    only = ["--plain=photographs", "--image-size=32", "--patch-size=8", "--pairs=1", "--images=2", "--candidates=3"]
    only += ["--attacks=brightness", "--keys=2", "--methods", "bs", "np", f"--output={tmp_path / 'matrix'}"]
    with pytest.raises(SystemExit) as status:
        run_ppvit("audit", "methods", *only, "--fail-on=brightness")
    assert status.value.code == EXIT_BROKEN
    text = (tmp_path / "matrix" / "matrix.md").read_text()
    assert "| method | brightness: mean |\n" in text and "The attacker has eyes." in text
    assert "| method | step | keys | brightness |" in text
    rows = json.loads((tmp_path / "matrix" / "matrix.json").read_text())["rows"]
    assert [(row["method"], row["repetition"], row["step"]) for row in rows if row["step"] == 2] == [
        ("bs", 0, 2),
        ("bs", 1, 2),
        ("np", 0, 2),
        ("np", 1, 2),
    ]


@pytest.mark.slow
def test_an_orthogonal_matrix_is_recovered(folder, tmp_path, capsys):
    arguments = ["--plain=photographs", "--image-size=64", "--patch-size=4", "--keys=2", "--pairs=1,2"]
    arguments.append(f"--base={folder / 'base.npz'}")
    with pytest.raises(SystemExit) as status:
        run_ppvit("audit", "orthogonal", *arguments, f"--output={tmp_path}", "--fail-on=any")
    assert status.value.code == EXIT_BROKEN
    text = (tmp_path / "orthogonal.md").read_text()
    assert "| 2 pairs of an image and its encryption | 2 | 1 | inf |" in text
    assert "the base and the adapted model (48 values, hidden size 16)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["methods", "--output={out}"], "the attacks on images need plain ones"),
        (["orthogonal", "--output={out}", "--plain={plain}", "--keys=0"], "--keys is 0: give at least 1"),
        (["methods", "--output={out}", "--plain=photographs", "--keys=0"], "--keys is 0: give at least 1"),
        (["methods", "--output={out}", "--plain=photographs", "--noise=-1"], "--noise is -1.0: give at least 0"),
        (["methods", "--output={out}", "--plain=photographs", "--draws=0"], "--draws is 0: give at least 1"),
        (["methods", "--output={out}", "--base={base}", "--model={model1}", "--attacks=link"], "give its --key"),
        (["weights", "--base={base}", "--model=nowhere.npz"], "cannot read the checkpoint nowhere.npz"),
        (["weights", "--base={base}", "--model={model1}", "--key={key2}"], "the model is adapted with the key"),
        (["ciphertext-only", "--encrypted={plain}"], "has no manifest.json"),
        (["ciphertext-only", "--encrypted={encrypted}", "--key={key2}"], "are encrypted with the key of fingerprint"),
        (["ciphertext-only", "--encrypted={encrypted}", "--encryption=bs"], "not by 'bs'"),
        (["ciphertext-only", "--encrypted={encrypted}", "--fail-on=gravity"], "the unknown attack 'gravity'"),
        (["dictionary", "--encrypted={encrypted}", "--plain={few}"], "has 3 images and the encrypted folder 14"),
        (["known-plaintext", "--encrypted={encrypted}", "--plain=nowhere"], "there is no nowhere"),
        (
            ["known-plaintext", "--encrypted={encrypted}", "--plain={encrypted}"],
            "are encrypted, according to their manifest",
        ),
        (["dictionary", "--encrypted={encrypted}", "--plain={plain}", "--candidates=0"], "--candidates is 0"),
        (["dictionary", "--encrypted={encrypted}", "--plain={plain}", "--seed=-1"], "--seed is -1"),
        (["methods", "--plain=photographs", "--output={out}", "--image-size=-16"], "--image-size is -16"),
        (["link", "--model={model1}"], "give --model once for each of two models"),
        (["all", "--output={out}"], "no attack could run"),
        (["methods", "--plain=photographs", "--output={out}", "--attacks=luck"], "the unknown attack 'luck'"),
        (["methods", "--plain=photographs", "--output={out}", "--methods", "rot13"], "unknown encryption 'rot13'"),
        (["methods", "--plain=photographs", "--output={out}", "--image-size=600"], "at most 427"),
    ],
)
def test_mistakes_give_one_line(arguments, message, folder, tmp_path, capsys):
    few = _photographs(tmp_path / "few", count=3)
    names = {name: folder / f"{name}.npz" for name in ("base", "model1")}
    names |= {"key2": folder / "2.key", "plain": folder / "plain", "encrypted": folder / "encrypted"}
    names |= {"few": few, "out": tmp_path / "out"}
    assert run_ppvit("audit", *(argument.format(**names) for argument in arguments)) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1 and message in errors[0]


def test_pairs_that_do_not_belong_together(folder, tmp_path, capsys):
    other = _photographs(tmp_path / "other", count=14, size=SIZE + 8)
    arguments = [f"--plain={other}", *_arguments(folder, "encrypted")]
    assert run_ppvit("audit", "known-plaintext", *arguments) == 1
    assert "give matching pairs" in capsys.readouterr().err
