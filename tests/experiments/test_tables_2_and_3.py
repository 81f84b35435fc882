import dataclasses
import json
import logging
import shlex

import jax
import pytest
from helpers.command import ROOT

from ppvit_jax import __main__ as commands
from ppvit_jax.command_line import run_command
from ppvit_jax.config import load
from ppvit_jax.experiments import budget, tables_2_and_3
from ppvit_jax.experiments.table_rows import TABLES
from ppvit_jax.training import experiment

OVERRIDES = [
    "--config.data.source=embedded",
    "--config.data.name=digits",
    "--config.tensorboard=False",
    "--config.image_size=16",
]
ROWS = "proposed_vit,plain_vit,etc_convmixer"
TABLE_2 = f"{ROOT / 'configs' / 'table2.py'}"
ARGUMENTS = ["reproduce", "table2", f"--config={TABLE_2}", f"--rows={ROWS}", *OVERRIDES]
# The paper's Tables II and III.
PUBLISHED = {
    2: [98.98, 94.49, 83.06, 92.03, 92.65, 96.20, 96.64, 87.89, 92.72, 96.70, 95.53, 99.00, 96.07],
    3: [99.2, 90.62, 90.11, 99.2, 96.10],
}
PUBLISHED_CIFAR_100 = [92.58, 75.48, 62.97, 84.42, 83.59, 92.60]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Trains three rows with a budget, and returns the output folder."""
    folder = tmp_path_factory.mktemp("table2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "make_plan", None)
        plan = budget.Plan(5.0, 64, 32, 2, 32, True)
        patch.setattr(tables_2_and_3, "make_plan", lambda sources, overrides, minutes: plan)
        assert run_command(commands.main, [*ARGUMENTS, "--budget=5", f"--output={folder}"]) == 0
    return folder


def _table(output):
    return json.loads((output / "table.json").read_text())


def test_rows_are_those_of_the_paper():
    for number, published in PUBLISHED.items():
        rows = TABLES[number]
        assert [next(iter(row.published.values())) for row in rows] == published
        assert len({row.name for row in rows}) == len(rows)
    published_cifar_100 = [row.published["cifar100"] for row in TABLES[2] if "cifar100" in row.published]
    assert published_cifar_100 == PUBLISHED_CIFAR_100


@pytest.mark.slow
def test_every_row_is_trained_alike_and_records_its_method(output):
    table = _table(output)
    assert [row["name"] for row in table["rows"]] == ["proposed_vit", "etc_convmixer", "plain_vit"]
    for row in table["rows"]:
        result = row["result"]
        assert (result["train_examples"], result["test_examples"], result["epochs"]) == (64, 32, 2)
        assert row["accuracy"] == 100 * result["test_accuracy"]
        assert row["best_epoch_accuracy"] == 100 * max(epoch["test_accuracy"] for epoch in row["epochs"])
        assert len(row["epochs"]) == 2
    by_name = {row["name"]: row["result"] for row in table["rows"]}
    assert by_name["etc_convmixer"]["model"] == "ConvMixer-256/8"
    assert {by_name[name]["model"] for name in ("proposed_vit", "plain_vit")} == {"ViT-Micro/8"}
    assert by_name["proposed_vit"]["adapt"] and by_name["proposed_vit"]["encryption"] == "bs+ps"
    assert by_name["etc_convmixer"]["encryption"] == "etc" and by_name["plain_vit"]["encryption"] == "none"
    # Adapted on encrypted images equals plain on plain images, except that rounding may change one of 32 predictions.
    assert abs(by_name["proposed_vit"]["test_accuracy"] - by_name["plain_vit"]["test_accuracy"]) <= 1 / 32


@pytest.mark.slow
def test_the_table_says_that_it_is_scaled_down_and_holds_a_command_for_each_row(output):
    text = (output / "table.md").read_text()
    assert "scaled-down run within 5 minutes: 2 epochs of 64 training images" in text
    assert "ViT-Micro/8 in place of ViT-B/16" in text and text.count("| not run |") == 10
    for row in _table(output)["rows"]:
        assert row["command"] in text
        arguments = shlex.split(row["command"])
        assert arguments[:2] == ["ppvit", "train"]
        config = load(arguments[2].removeprefix("--config="), arguments[3:-1])
        told = json.loads((output / "rows" / row["name"] / "config.json").read_text())["config"]
        assert json.loads(config.to_json()) == told


@pytest.mark.slow
def test_a_rows_command_continues_the_row(output, capsys):
    row = _table(output)["rows"][1]
    assert run_command(commands.main, shlex.split(row["command"])[1:]) == 0
    printed = capsys.readouterr()
    assert "already complete" in printed.err
    assert json.loads(printed.out) == row["result"]


@pytest.mark.slow
def test_complete_rows_are_not_trained_again_and_another_budget_is_refused(output, capsys):
    before = {path: path.stat().st_mtime_ns for path in output.rglob("checkpoint.npz")}
    assert len(before) == 3
    assert run_command(commands.main, [*ARGUMENTS, "--budget=5", f"--output={output}"]) == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("checkpoint.npz")} == before
    assert capsys.readouterr().err.count("nothing to do") == 3
    assert run_command(commands.main, [*ARGUMENTS, "--budget=6", f"--output={output}"]) == 1
    assert "another budget" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows=plain_vit,rot13"], "unknown rows rot13"),
        (["--config=nowhere"], "no configuration file nowhere"),
        (["--budget=0"], "give a positive number"),
        (["--budget=0.001", "--rows=plain_convmixer", "--config.model=ConvMixer-8/1"], "is not enough for 1 rows"),
        (["--rows=plain_vit", "--config.checkpoint=nowhere.npz"], "cannot read the checkpoint nowhere.npz"),
    ],
)
def test_mistakes_give_one_line(tmp_path, capsys, arguments, message):
    assert run_command(commands.main, [*ARGUMENTS, f"--output={tmp_path}", *arguments]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert message in errors[-1] and errors[-1].startswith("error:")
    assert not any("Traceback" in line for line in errors)


def test_a_plan_fits_its_rows_into_the_minutes(monkeypatch):
    sources = [f"{TABLE_2}:{name}" for name in ("plain_vit", "etc_convmixer")]
    monkeypatch.setattr(budget, "_time", lambda config, dataset: (0.64, 0.32))
    plans = [budget.make_plan(sources, OVERRIDES, minutes) for minutes in (1.5, 3.0)]
    for plan in plans:
        assert plan.train_examples % plan.batch_size == 0 and plan.test_examples == min(plan.train_examples // 2, 360)
        seconds = 2 * plan.epochs * plan.train_examples * (0.02 + 0.005) + 2 * budget._OVERHEAD_SECONDS
        assert seconds <= 60 * plan.minutes
    assert plans[0].train_examples < plans[1].train_examples
    everything = budget.make_plan(sources, OVERRIDES, 1e6)
    assert (everything.train_examples, everything.test_examples) == (1437 // 32 * 32, 360)


def test_rates_follow_the_batch_and_a_missing_pretrained_model_is_replaced():
    plan = budget.Plan(5.0, 64, 32, 2, 32, False)
    config = load(f"{TABLE_2}:le_shakedrop")
    assert f"--config.optimizer.learning_rate={0.1 * 32 / 512:g}" in plan.overrides(config)
    vit = load(f"{TABLE_2}:plain_vit")
    assert "--config.model=ViT-Micro/8" not in plan.overrides(vit)
    assert "--config.model=ViT-Micro/8" in dataclasses.replace(plan, replaces_vit=True).overrides(vit)
    assert "ViT-Micro/8" not in plan.described()


@pytest.mark.slow
def test_a_plan_compiles_the_programs_that_its_rows_run(tmp_path, caplog):
    source = f"{TABLE_2}:plain_convmixer"
    # No other test has this model, whose programs this process would then have.
    overrides = [*OVERRIDES, "--config.model=ConvMixer-12/1", "--config.data.train_examples=96"]
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        plan = budget.make_plan([source], overrides, 10.0)
        config = load(source, plan.overrides(load(source, overrides)) + overrides)
        experiment.run(config, tmp_path)
    compiled = [record.getMessage() for record in caplog.records]
    assert plan.train_examples == 96
    for step in ("train_step", "eval_step"):
        assert sum(f"Finished XLA compilation of jit({step})" in message for message in compiled) == 1
