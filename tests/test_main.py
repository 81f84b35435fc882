import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.command import ROOT, SMALL_RUN, finish, make_key, start

import ppvit_jax
from ppvit_jax import __main__ as commands
from ppvit_jax import adaptation, checkpoint, keys, models
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.command_line import run_command, run_program
from ppvit_jax.commands import COMMANDS
from ppvit_jax.config import load
from ppvit_jax.errors import UserError, resuming
from ppvit_jax.main import main
from ppvit_jax.training import experiment

CIFAR10 = f"--config={ROOT / 'configs' / 'cifar10_micro.py'}"


@pytest.fixture
def bad_input(tmp_path):
    """A mistake of a user: arguments, and the message to read."""
    embedded = checkpoint.resolve("embedded")
    arrays, _ = checkpoint.read(embedded)
    params = checkpoint.to_params(
        arrays, models.parse_name("ViT-Micro/8", image_size=64, num_classes=10), keep_head=False
    )
    key = keys.load(make_key(tmp_path, 1))
    permutations = key.permutations("bs+ps", image_size=64, patch_size=8)
    adapted = tmp_path / "adapted.npz"
    checkpoint.write(
        adapted, adaptation.adapt(params, permutations), Metadata("ViT-Micro/8", 64, "bs+ps", key.fingerprint)
    )
    truncated = tmp_path / "truncated.npz"
    truncated.write_bytes(embedded.read_bytes()[:500_000])
    (shared_key := make_key(tmp_path, 3)).chmod(0o644)
    (begun := tmp_path / "begun").mkdir()
    config = json.loads((load(SMALL_RUN[0].split("=")[1])).to_json())
    record = {"config": config | {"seed": 5}, "encryption": "none", "key_fingerprint": None, "metadata": {}}
    (begun / "config.json").write_text(json.dumps(record))
    small = SMALL_RUN[0]
    return {
        "wrong key for a model": (
            [small, f"--config.checkpoint={adapted}", f"--config.key_file={make_key(tmp_path, 2)}"],
            r"is adapted to 'bs\+ps' \(key fingerprint \w+\), but .* \(key fingerprint \w+\):",
        ),
        "key that others can read": ([small, f"--config.key_file={shared_key}"], "run chmod 600"),
        "no key": ([small, f"--config.key_file={tmp_path}/no.key"], "cannot read the key file"),
        "truncated checkpoint": ([small, f"--config.checkpoint={truncated}"], "truncated, damaged or not a .npz file"),
        "another checkpoint than expected": (
            [small, f"--config.checkpoint_sha256={'0' * 64}"],
            "has the SHA-256 [0-9a-f]{64} and not 0{64}",
        ),
        "no checkpoint": ([small, "--config.checkpoint=no.npz"], "cannot read the checkpoint no.npz"),
        "another model": ([small, "--config.model=ViT-Ti/16"], "is ViT-Micro/8 .*: set config.model=ViT-Micro/8, or"),
        "kept head of other classes": ([small, "--config.head=keep"], r"head/kernel has \(128, 200\) and needs"),
        "missing data set": (
            [CIFAR10, "--config.data.download=False", f"--config.data.dir={tmp_path}"],
            "no prepared data set 'cifar10' in .*prepare it with",
        ),
        "missing folder": (
            [small, "--config.data.source=image_folder", f"--config.data.dir={tmp_path}/images"],
            "cannot read the folder .*/images",
        ),
        "image size": ([small, "--config.image_size=225"], "225 is not a multiple of the patch size 8"),
        "per-channel normalization": (
            [small, "--config.mean=(0.485,0.456,0.406)", "--config.std=(0.229,0.224,0.225)"],
            "under adaptation use the same for all three",
        ),
        "workdir of another configuration": (
            [small, "--config.encryption=none", f"--workdir={begun}"],
            "holds a run with another configuration .*config.seed was 5 and is 0",
        ),
        "unknown field": ([small, "--config.epoch=3"], "no field 'epoch'"),
        "unknown argument": ([small, "--epochs=3"], "Unknown command line flag 'epochs'"),
        "no configuration": (["--config=none.py"], "no configuration file none.py"),
        "freeze that matches nothing": ([small, "--config.freeze=('blocks.*',)"], "no parameter's name"),
        "no coordinator": (
            [small, "--coordinator-address=nowhere:1"],
            "cannot join the other processes",
        ),
    }


@pytest.mark.parametrize(
    "mistake",
    [
        "wrong key for a model",
        "key that others can read",
        "no key",
        "truncated checkpoint",
        "another checkpoint than expected",
        "no checkpoint",
        "another model",
        "kept head of other classes",
        "missing data set",
        "missing folder",
        "image size",
        "per-channel normalization",
        "workdir of another configuration",
        "unknown field",
        "unknown argument",
        "no configuration",
        "freeze that matches nothing",
        "no coordinator",
    ],
)
def test_a_mistake_gives_one_clear_line_and_writes_no_result(bad_input, tmp_path, capsys, mistake):
    arguments, message = bad_input[mistake]
    workdir = tmp_path / "workdir"
    if not any(text.startswith("--workdir") for text in arguments):
        arguments = [*arguments, f"--workdir={workdir}"]
    assert run_command(main, arguments) == 1
    errors = capsys.readouterr().err
    assert re.search(message, errors), errors
    assert errors.startswith("error: ") and errors.count("\n") == 1
    # A key that was made for the run may stay; nothing else that looks like one may.
    assert not {"result.json", "checkpoint.npz", "metrics.jsonl"} & {path.name for path in workdir.rglob("*")}


@pytest.mark.slow
def test_the_command_line_itself(tmp_path):
    """In a process of its own: the exit status and no traceback, then a run to the end."""
    bad, good = finish(
        start([*SMALL_RUN, f"--workdir={tmp_path / 'bad'}", "--config.checkpoint=no.npz"]),
        start([*SMALL_RUN, f"--workdir={tmp_path / 'good'}", "--config.epochs=1"]),
    )
    assert (bad[0], bad[1]) == (1, "")
    assert bad[2] == "error: cannot read the checkpoint no.npz: No such file or directory\n"
    assert good[0] == 0, good[2]
    result = json.loads(good[1])
    assert result == json.loads((tmp_path / "good" / "result.json").read_text())
    assert result["test_examples"] == 30 and np.isfinite(result["train_loss"])
    assert "test accuracy" in good[2]
    key = keys.load(tmp_path / "good" / "secret.key")
    assert key.fingerprint == result["key_fingerprint"]


def test_an_interrupted_command_says_how_to_go_on_where_it_can(capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    assert run_command(interrupted, []) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert run_command(resuming()(interrupted), []) == 130
    assert capsys.readouterr().err == "interrupted: run the same command again to continue\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full, a disk that is always full")
def test_a_full_disk_gives_one_line(capsys):
    def fill(arguments):
        Path("/dev/full").write_text("x")

    for command, advice in (
        (fill, "run the command again"),
        (resuming()(fill), "run the same command again to continue"),
    ):
        assert run_command(command, []) == 1
        assert capsys.readouterr().err == f"error: No space left on device; free some space, then {advice}\n"


def test_an_error_of_the_program_keeps_its_traceback():
    for error in (KeyError("a defect"), RuntimeError("a defect"), AssertionError(), ValueError("a defect")):

        def fail(arguments, error=error):
            raise error

        with pytest.raises(type(error)):
            run_command(fail, [])


def test_hooks_are_installed_by_the_program_alone(monkeypatch):
    hooks = sys.excepthook, sys.unraisablehook
    filters = list(logging.getLogger("asyncio").filters)
    for hook in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, hook, getattr(sys, hook))
    monkeypatch.setattr(logging.getLogger("asyncio"), "filters", filters.copy())
    monkeypatch.setattr(sys, "argv", ["ppvit", "a", "b"])

    def fail(arguments):
        raise UserError(str(arguments))

    assert run_command(fail, []) == 1
    assert (sys.excepthook, sys.unraisablehook) == hooks and logging.getLogger("asyncio").filters == filters
    # They stay to the end of a program that has told its user what is wrong, and not where it has a defect.
    with pytest.raises(ZeroDivisionError):
        run_program(lambda arguments: print(1 / 0))
    assert (sys.excepthook, sys.unraisablehook) == hooks
    shown = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: shown.append(error))
    assert run_program(fail) == 1
    for error in (RuntimeError("Event loop is closed"), defect := RuntimeError("a defect")):
        sys.excepthook(RuntimeError, error, None)
    assert shown == [defect]


def test_commands_refuse_what_they_do_not_know(capsys):
    assert run_command(commands.main, ["benchmark", "--epochs=3"]) == 1
    assert "unknown arguments --epochs=3" in capsys.readouterr().err
    for arguments in ([], ["fly"]):
        with pytest.raises(SystemExit) as caught:
            commands.main(arguments)
        assert caught.value.code == 2


def test_train_and_main_are_one_program(tmp_path, capsys, monkeypatch):
    runs = []
    monkeypatch.setattr(experiment, "run", lambda config, workdir: runs.append((config.to_dict(), workdir)) or {})
    arguments = [SMALL_RUN[0], "--config.epochs", "3", "--config.adapt=False", "--allow-mismatch", "--workdir=w"]
    for program, before in ((main, []), (commands.main, ["train"])):
        assert run_command(program, [*before, *arguments]) == 0
    capsys.readouterr()
    assert runs[0] == runs[1] and (runs[0][0]["epochs"], runs[0][0]["allow_mismatch"]) == (3, True)
    for mistake in ([SMALL_RUN[0], "--epochs=3", "--workdir=w"], ["--config=none.py", "--workdir=w"]):
        outputs = []
        for program, before in ((main, []), (commands.main, ["train"])):
            assert run_command(program, [*before, *mistake]) == 1
            outputs.append(capsys.readouterr())
        assert outputs[0] == outputs[1]
    helps = []
    for program, before, name in ((main, [], "python -m ppvit_jax.main"), (commands.main, ["train"], "ppvit train")):
        with pytest.raises(SystemExit) as ended:
            program([*before, "--help"])
        usage, _, rest = capsys.readouterr().out.partition("\n\n")
        assert ended.value.code == 0 and usage.startswith(f"usage: {name} [-h] --config FILE --workdir DIR")
        helps.append(rest)
        with pytest.raises(SystemExit) as ended:
            program([*before, "--conf", "x.py"])
        assert ended.value.code == 2 and f"{name}: error:" in capsys.readouterr().err
    assert helps[0] == helps[1]


def test_ppvit_lists_its_commands_in_english(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        commands.main([])
    shown = capsys.readouterr().err
    assert ended.value.code == 2
    with pytest.raises(SystemExit) as ended:
        commands.main(["--help"])
    assert ended.value.code == 0 and capsys.readouterr().out == shown
    lines = [line.split(maxsplit=1) for line in shown.splitlines() if line.startswith("    ")]
    # One line each, that begins with a verb.
    assert dict(lines) == COMMANDS
    story = ["keygen", "encrypt", "adapt", "train", "predict", "restore"]
    assert [name for name in COMMANDS if name in story] == story == list(COMMANDS)[:5] + story[5:]
    with pytest.raises(SystemExit) as ended:
        commands.main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"ppvit {ppvit_jax.__version__}\n"


def test_the_list_of_commands_is_the_folder():
    folder = Path(commands.__file__).parent / "commands"
    assert set(COMMANDS) == {path.stem for path in folder.glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "--workdir=w"], ["keygen", "--help"]])
def test_help_loads_no_library_of_tensors(arguments):
    code = (
        "import sys\nfrom ppvit_jax.__main__ import main\ntry:\n    main(sys.argv[1:])\n"
        "finally:\n    assert not {'jax', 'flax', 'orbax', 'scipy', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert "AssertionError" not in done.stderr, done.stderr
