"""One experiment with several seeds."""

import json
import statistics

import pytest
from helpers.command import SMALL_RUN, run_ppvit

from ppvit_jax.command_line import run_command
from ppvit_jax.errors import UserError
from ppvit_jax.main import main
from ppvit_jax.training import experiment
from ppvit_jax.training.seeds import format_table, parse_seeds

ACCURACIES = {0: 0.5, 1: 0.75, 7: 0.625}


@pytest.fixture
def runs(monkeypatch):
    """Replaces the experiment; yields the seeds and folders of its runs."""
    runs = []

    def run(config, workdir):
        runs.append((config.seed, workdir.name))
        return {"test_accuracy": ACCURACIES[config.seed], "test_loss": 2.0 - config.seed}

    monkeypatch.setattr(experiment, "run", run)
    return runs


@pytest.mark.parametrize("program", ["ppvit train", "python -m ppvit_jax.main"])
def test_each_seed_has_a_folder_and_the_summary_has_mean_and_sample_deviation(runs, tmp_path, capsys, program):
    arguments = [SMALL_RUN[0], "--workdir", str(tmp_path), "--seeds", "0, 1,7"]
    status = run_ppvit("train", *arguments) if program == "ppvit train" else run_command(main, arguments)
    shown = capsys.readouterr()
    assert status == 0, shown.err
    assert runs == [(0, "seed0"), (1, "seed1"), (7, "seed7")]
    summary = json.loads((tmp_path / "seeds.json").read_text())
    assert json.loads(shown.out) == summary
    values = list(ACCURACIES.values())
    assert summary["test_accuracy"] == {
        "mean": pytest.approx(sum(values) / 3),
        "standard_deviation": pytest.approx((sum((x - sum(values) / 3) ** 2 for x in values) / 2) ** 0.5),
    }
    assert summary["test_loss"]["standard_deviation"] == pytest.approx(statistics.stdev([2.0, 1.0, -5.0]))
    assert [(row["seed"], row["workdir"], row["test_accuracy"]) for row in summary["runs"]] == [
        (0, "seed0", 0.5),
        (1, "seed1", 0.75),
        (7, "seed7", 0.625),
    ]
    table = [line.split() for line in shown.err.splitlines()[-6:]]
    assert table[1:] == [
        ["0", "50.00%", "2.0000"],
        ["1", "75.00%", "1.0000"],
        ["7", "62.50%", "-5.0000"],
        ["mean", "62.50%", "-0.6667"],
        ["deviation", "12.50%", f"{statistics.stdev([2.0, 1.0, -5.0]):.4f}"],
    ]


def test_one_seed_has_no_deviation(runs, tmp_path, capsys):
    assert run_ppvit("train", SMALL_RUN[0], "--workdir", tmp_path, "--seeds", "1") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["test_accuracy"] == {"mean": 0.75, "standard_deviation": None}
    assert "deviation" not in format_table(summary)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ("", "--seeds is '': give whole numbers with commas between them, such as 0,1,2"),
        ("0,,1", "give whole numbers"),
        ("0,1.5", "give whole numbers"),
        ("zero", "give whole numbers"),
        ("0-2", "give whole numbers"),
        ("3,-1", "--seeds is -1: give at least 0"),
        (f"0,{2**63}", f"--seeds is {2**63}: give at most {2**63 - 1}"),
        ("0,1,00", "--seeds is '0,1,00', which has 0 twice: give each seed once"),
    ],
)
def test_a_bad_list_gives_one_line_and_starts_nothing(runs, tmp_path, capsys, seeds, message):
    with pytest.raises(UserError):
        parse_seeds(seeds)
    assert run_ppvit("train", SMALL_RUN[0], "--workdir", tmp_path / "w", f"--seeds={seeds}") == 1
    errors = capsys.readouterr().err
    assert message in errors and errors.startswith("error: ") and errors.count("\n") == 1
    assert not runs and not (tmp_path / "w").exists()


@pytest.mark.parametrize("override", [["--config.seed=3"], ["--config.seed", "3"]])
def test_a_seed_beside_the_list_is_refused(runs, tmp_path, capsys, override):
    assert run_ppvit("train", SMALL_RUN[0], "--workdir", tmp_path, "--seeds=0,1", *override) == 1
    assert "--seeds sets config.seed for each run: remove --config.seed, or --seeds" in capsys.readouterr().err
    assert not runs


@pytest.mark.slow
def test_runs_of_several_seeds_are_those_of_single_commands_and_resume(tmp_path, capsys, monkeypatch):
    short = [*SMALL_RUN, "--config.epochs=1", "--config.data.train_examples=16"]
    assert run_ppvit("train", *short, "--workdir", tmp_path, "--seeds=0,5") == 0
    first = json.loads(capsys.readouterr().out)
    result = json.loads((tmp_path / "seed5" / "result.json").read_text())
    assert result["seed"] == 5 and result["test_loss"] == first["runs"][1]["test_loss"]
    assert first["runs"][0]["test_loss"] != first["runs"][1]["test_loss"]
    assert run_ppvit("train", *short, "--workdir", tmp_path / "seed5", "--config.seed=5") == 0
    assert "already complete" in capsys.readouterr().err
    # A longer list trains the new seed alone.
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("seed*/*.npz")}
    assert run_ppvit("train", *short, "--workdir", tmp_path, "--seeds=0,5,6") == 0
    shown = capsys.readouterr()
    assert shown.err.count("already complete") == 2 and len(times) == 2
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert json.loads(shown.out)["runs"][:2] == first["runs"]
