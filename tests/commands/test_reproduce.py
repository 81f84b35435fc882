import dataclasses
import json
import shlex

import pytest
from helpers.command import ROOT, run_ppvit

from ppvit_jax import config as configuration
from ppvit_jax.commands import reproduce
from ppvit_jax.config import default_config
from ppvit_jax.experiments import budget, table_rows, tables_2_and_3

NAMES = ("table1", "table2", "table3", "access", "adaptation", "gallery")
# Every flag of a subcommand except --output, with the subcommands that have the flag.
FLAGS = {
    "--config": ("table1", "table2", "table3", "access", "adaptation"),
    "--config.epochs": ("table1", "table2", "table3", "access", "adaptation"),
    "--arms": ("table1",),
    "--rows": ("table2", "table3", "adaptation"),
    "--budget": ("table2", "table3"),
    "--wrong-keys": ("access",),
    "--image": ("gallery",),
    "--key": ("gallery",),
    "--image-size": ("gallery",),
    "--block-size": ("gallery",),
}


@pytest.fixture
def ran(monkeypatch):
    """Records the name, arguments and output folder of each reproduction, which then measures nothing."""
    calls = []

    def record(name):
        return lambda arguments, output: calls.append((name, arguments, output))

    recorded = [dataclasses.replace(item, run=record(item.name)) for item in reproduce.REPRODUCTIONS]
    monkeypatch.setattr(reproduce, "REPRODUCTIONS", recorded)
    return calls


def test_the_subcommands_are_these():
    assert tuple(item.name for item in reproduce.REPRODUCTIONS) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flag", FLAGS)
def test_a_subcommand_has_its_own_flags_alone(name, flag, tmp_path, capsys, ran):
    status = run_ppvit("reproduce", name, f"--output={tmp_path}", f"{flag}=3")
    if name in FLAGS[flag]:
        ((called, arguments, output),) = ran
        assert (status, called, output) == (0, name, tmp_path)
        assert arguments.overrides == (["--config.epochs=3"] if flag == "--config.epochs" else [])
    else:
        assert status == 1 and not ran
        error = capsys.readouterr().err
        assert error.startswith(f"error: unknown arguments {flag}=3: ") and error.count("\n") == 1
        assert error.endswith(f" see ppvit reproduce {name} --help\n")
        assert flag == "--config.epochs" or all(f"ppvit reproduce {owner}" in error for owner in FLAGS[flag])


@pytest.mark.parametrize("name", NAMES)
def test_help_names_the_flags_of_a_subcommand(name, capsys):
    with pytest.raises(SystemExit) as ended:
        run_ppvit("reproduce", name, "--help")
    text = capsys.readouterr().out
    assert ended.value.code == 0 and "--output DIR" in text
    for flag, names in FLAGS.items():
        assert (f"[{flag} " in text) == (name in names and "." not in flag)
    assert ("--config.epochs=3" in text) == (name in FLAGS["--config.epochs"])


@pytest.mark.parametrize(
    ("former", "arguments"),
    [
        ("--table=1 --config=c.py --config.epochs=2 --output=o", "table1 --config=c.py --config.epochs=2 --output=o"),
        ("--output o --table 2 --rows=a,b --budget 5", "table2 --output o --rows=a,b --budget 5"),
        ("--config.seed=1 --table=3 --config.epochs=2", "table3 --config.seed=1 --config.epochs=2"),
        ("--table=access --wrong-keys 2 --output=reproduce", "access --wrong-keys 2 --output=reproduce"),
        ("--table adaptation '--rows=np;etc:shared=True'", "adaptation '--rows=np;etc:shared=True'"),
        ("--image i.png --figure=gallery --key k", "gallery --image i.png --key k"),
        ("--help", "--help"),
        ("table2 --rows=a --output o", "table2 --rows=a --output o"),
    ],
)
def test_former_spellings_mean_the_subcommands(former, arguments):
    translated = reproduce.translate_former_spelling(["reproduce", *shlex.split(former)])
    assert translated == ["reproduce", *shlex.split(arguments)]


def test_a_former_spelling_runs_its_subcommand(tmp_path, ran):
    arguments = [f"--output={tmp_path}", "--config.epochs=2", "--table", "2", "--rows=etc_vit", "--config.seed=1"]
    assert run_ppvit("reproduce", *arguments) == 0
    ((name, parsed, _),) = ran
    assert (name, parsed.rows, parsed.overrides) == ("table2", "etc_vit", ["--config.epochs=2", "--config.seed=1"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "required: NAME"),
        ("--table=4 --output=o", "invalid choice: '4'"),
        ("--table=1 --figure=gallery --output=o", "not allowed with"),
        ("table9 --output=o", "invalid choice: 'table9'"),
        ("table1", "required: --output"),
    ],
)
def test_a_wrong_usage_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        run_ppvit("reproduce", *shlex.split(arguments))
    assert ended.value.code == 2 and message in capsys.readouterr().err


def _make_new_row(spec):
    config = default_config()
    config.encryption, config.adapt, config.epochs = spec, True, 7
    return config


@pytest.fixture
def new_row(monkeypatch):
    """Adds a row to Table III by one entry in its list."""
    row = table_rows.Row(
        "np_vit", "Negative-positive", "ViT-B/16", {"imagenette": 12.5}, _make_new_row, "np", "everything"
    )
    monkeypatch.setitem(table_rows.TABLES, 3, (*table_rows.TABLES[3], row))
    return row


def test_a_row_in_the_list_is_a_configuration_and_a_choice_of_rows(new_row, capsys):
    config = configuration.load(f"{ROOT / 'configs' / 'table3.py'}:np_vit")
    assert (config.encryption, config.adapt, config.epochs) == ("np", True, 7)
    with pytest.raises(SystemExit):
        run_ppvit("reproduce", "table3", "--help")
    assert "np_vit" in capsys.readouterr().out


@pytest.mark.slow
def test_a_row_in_the_list_is_trained_into_the_table(new_row, tmp_path, monkeypatch):
    plan = budget.Plan(5.0, 64, 32, 1, 32, True)
    monkeypatch.setattr(tables_2_and_3, "make_plan", lambda sources, overrides, minutes: plan)
    arguments = [
        f"--config={ROOT / 'configs' / 'table3.py'}",
        "--config.data.source=embedded",
        "--config.data.name=digits",
        "--config.image_size=16",
        "--config.tensorboard=False",
        "--rows=np_vit",
        "--budget=5",
    ]
    assert run_ppvit("reproduce", "table3", f"--output={tmp_path}", *arguments) == 0
    (row,) = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert (row["name"], row["encryption"], row["model"]) == ("np_vit", "Negative-positive", "ViT-B/16")
    assert (row["published"], row["reconstruction"]) == (None, "everything")
    assert row["command"].startswith(f"ppvit train --config={ROOT / 'configs' / 'table3.py'}:np_vit ")
    assert "| 12.50 on imagenette | everything |" in (tmp_path / "table.md").read_text()
