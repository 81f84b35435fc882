"""`python -m benchmarks quick`: the table, the time, and results that are wrong."""

import argparse
import importlib
import json
import time

import numpy as np
import pytest
from helpers.command import ROOT
from helpers.pages import blocks
from helpers.tiny import random_dataset

from benchmarks import __main__ as program
from benchmarks import timing
from benchmarks.quick import command, promises, speed
from benchmarks.quick.rows import Limit, Part, compare, judge
from benchmarks.quick.session import Session, Workload
from benchmarks.settings import Settings
from ppvit_jax import adaptation
from ppvit_jax.encryption import BlockScramblingPixelShuffling
from ppvit_jax.errors import UserError
from ppvit_jax.models import vit_config

TINY = Workload("ViT-Nano/8", "float32", (4,), 32, (3,), 2, 2, 2, 0.01, 0.1, 0.1)
MEASURES = [
    "encryption on the device, 3 images",
    "matrix product, 32, float32",
    "encryption alone, 3 images",
    "encryption alone, cut into patches, 3 images",
    "training step, ViT-Nano/8, float32, batch 4",
    "share of the product rate, ViT-Nano/8, float32, batch 4",
    "encrypted step, ViT-Nano/8, float32, batch 4",
    "adapted model on encrypted images, float32: largest difference of logits",
    "adapted model on encrypted images, bfloat16: largest difference of logits",
    "two runs of 2 steps, batch 4, by default",
    "two runs of 2 steps, batch 4, config.deterministic=True",
    "encrypted step, batch 4, config.deterministic=True",
    "training loop, ViT-Nano/8, float32, batch 4, encrypted",
    "whole run, 2 epochs of 8 images",
]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Lets the benchmark measure a tiny model on this processor, in three turns."""
    monkeypatch.setitem(vit_config.SIZES, "Nano", (16, 1, 2, 32))
    monkeypatch.setattr(command, "choose_workload", lambda device: TINY)
    monkeypatch.setattr(command, "_IMAGE_SIZE", 16)
    monkeypatch.setattr(command, "_TURNS", 3)
    monkeypatch.setattr(timing, "_SHORTEST_TURN", 0.001)


def session(tmp_path, device="cpu", compares=False):
    settings = Settings(("ViT-Nano/8",), (), (), 16, 3, compares, device, "", "", tmp_path)
    return Session(settings, TINY)


def parse(tmp_path, *more):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(["--output", str(tmp_path), "--device", "cpu", "--without-pytorch", *more])


def read(tmp_path):
    content = json.loads((tmp_path / "benchmark.json").read_text())
    (table,) = content["sections"]["quick"]
    return table["rows"]


def part(name, rows, seconds=0.0):
    """Returns a part with two measures, which yields rows or raises what stands among them."""

    def run():
        for row in rows:
            if isinstance(row, Exception):
                raise row
            yield row

    return Part(name, (f"{name} 1", f"{name} 2"), run, lambda: seconds)


@pytest.mark.slow
def test_every_measure_has_a_row_in_one_table_and_one_file(tmp_path, capsys):
    command.run(parse(tmp_path))
    rows = {row["measure"]: row for row in read(tmp_path)}
    assert list(rows) == MEASURES
    output = capsys.readouterr()
    lines = [line for line in output.out.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0][2:] for line in lines[1:]] == MEASURES
    assert (tmp_path / "benchmark.md").read_text().strip().endswith(output.out.strip())
    assert "part 8 of 8: training loop" in output.err
    equal, _, alone, _, step, share, encrypted, *_ = rows.values()
    assert equal["value"] == "equal bits" and equal["verdict"] == "kept"
    assert alone["ratio"] == pytest.approx(alone["value"] / alone["reference_value"])
    assert len(step["turns"]["plain"]) == 3 and "reference" not in step
    assert encrypted["reference_value"] == step["value"] and share["value"] > 0
    exact, rounded = (rows[name] for name in MEASURES[7:9])
    assert 0 < exact["value"] < 1e-5 < exact["reference_value"]
    assert exact["verdict"] == "kept" and "verdict" not in rounded
    assert rows[MEASURES[10]]["value"] == "equal bits" and rows[MEASURES[10]]["verdict"] == "kept"
    loop, whole = (rows[name] for name in MEASURES[12:])
    assert loop["unit"] == "images/s" and loop["ratio"] > 0 and whole["value"] > 0


def test_without_time_every_measure_is_listed_as_not_measured(tmp_path, capsys):
    command.run(parse(tmp_path, "--minutes", "0.001"))
    rows = read(tmp_path)
    assert [row["measure"] for row in rows] == MEASURES
    assert {row["verdict"] for row in rows} == {"not measured (time)"}
    assert capsys.readouterr().out.count("not measured (time)") == len(MEASURES)


def test_a_part_that_no_longer_fits_is_left_out_and_a_shorter_one_is_not():
    parts = [part("long", [], seconds=1000), part("short", [{"measure": "short 1"}, {"measure": "short 2"}], seconds=1)]
    last = [part("last", [{"measure": "last 1"}, {"measure": "last 2"}], seconds=10_000)]
    written = []
    rows = command.measure(parts, last, time.monotonic() + 30, lambda rows: written.append(len(rows)))
    assert [row["measure"] for row in rows] == ["long 1", "long 2", "short 1", "short 2", "last 1", "last 2"]
    assert [row.get("verdict") for row in rows] == ["not measured (time)"] * 2 + [None] * 4
    # A run that is ended keeps what it has measured.
    assert written == sorted(written) and set(written) >= {2, 3, 4, 5, 6}


def test_a_failure_keeps_the_rows_before_it_and_ends_with_an_error(capsys):
    parts = [part("bad", [{"measure": "bad 1"}, RuntimeError("out of\nmemory")]), part("good", [])]
    rows = command.measure(parts, [], time.monotonic() + 100, lambda rows: None)
    assert [row["measure"] for row in rows] == ["bad 1", "bad 2"]
    assert rows[1]["verdict"] == "failed: out of memory" and "RuntimeError" in rows[1]["traceback"]
    assert "warning: bad: out of memory" in capsys.readouterr().err
    with pytest.raises(UserError, match="these measurements failed: bad 2"):
        command.check(rows)


def test_a_ratio_is_the_value_divided_by_the_reference():
    assert compare("plain", 3.0, 2.0, "ms") == {"reference": "plain, 2 ms", "reference_value": 2.0, "ratio": 1.5}
    assert compare("a copy", 1.0, 12_345.6, "GB/s")["reference"] == "a copy, 12,346 GB/s"


def test_limits_are_kept_missed_or_without_a_comparison():
    fast, ahead = Limit("value", 62, "at most 62 ms"), Limit("ratio", 1, "ratio at most 1")
    exact = Limit("value", 1e-5, "at most 1e-5", is_promise=True)
    assert judge({"value": 62.0, "ratio": 0.9}, fast, ahead)["verdict"] == "kept"
    assert judge({"value": 62.0, "ratio": 1.1}, fast, ahead)["verdict"] == "MISSED"
    assert judge({"value": 61.0}, fast, ahead)["verdict"] == "not compared"
    assert judge({"value": 63.0}, fast, ahead)["verdict"] == "MISSED"
    assert judge({"value": float("nan")}, exact)["verdict"] == "MISSED"
    assert "verdict" not in judge({"value": 61.0})
    # A slow step is no defect; a wrong result is.
    command.check([judge({"measure": "step", "value": 63.0}, fast)])
    with pytest.raises(UserError, match=r"a promise of the documentation is not kept \(exactness\)"):
        command.check([judge({"measure": "exactness", "value": 2e-5}, exact)])


def test_steps_are_compared_by_their_turns(tmp_path, monkeypatch):
    turns = {"plain": [0.060, 0.061, 0.062], "encrypted": [0.060, 0.061, 0.063], "compiled PyTorch": [0.070] * 3}
    monkeypatch.setattr(speed, "take_turns", lambda works, *more: {name: turns[name] for name in works})
    monkeypatch.setattr(speed, "_free_memory", lambda session: None)
    monkeypatch.setattr(Session, "is_hopper", True)
    monkeypatch.setattr(speed, "_STEP_TARGETS", {4: 61.5})
    for name in ("step", "pytorch_step"):
        monkeypatch.setattr(Session, name, lambda *arguments, **more: argparse.Namespace(run=None))
    state = session(tmp_path, device="gpu", compares=True)
    state.product_rate = 0.001
    step, share, encrypted = speed.steps(state, 4).run()
    assert step["value"] == pytest.approx(61) and step["reference_value"] == pytest.approx(70)
    assert step["ratio"] == pytest.approx(61 / 70) and step["ratio_quartiles"][1] == pytest.approx(61.5 / 70)
    assert step["limit"] == "at most 61.5 ms; ratio at most 1" and step["verdict"] == "kept"
    assert share["ratio"] == pytest.approx(70 / 61)
    assert encrypted["ratio"] == 1 and encrypted["verdict"] == "kept"
    assert state.encrypted_rates == {4: pytest.approx(4 / 0.061)}
    turns["encrypted"] = [0.0614] * 3
    assert list(speed.steps(state, 4).run())[2]["verdict"] == "MISSED"
    turns["plain"] = [0.071] * 3
    assert next(speed.steps(state, 4, encrypted=False).run())["verdict"] == "MISSED"


def test_a_step_is_measured_where_pytorchs_fails(tmp_path, monkeypatch, capsys):
    def fail(self, batch_size):
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(Session, "pytorch_step", fail)
    monkeypatch.setattr(speed, "_free_memory", lambda session: None)
    monkeypatch.setattr(Session, "step", lambda *arguments, **more: argparse.Namespace(run=lambda count: None))
    step, *_ = speed.steps(session(tmp_path, device="gpu", compares=True), 4).run()
    assert step["reference"] == "compiled PyTorch failed: no C compiler" and step["value"] > 0
    assert step["verdict"] == "not compared"
    assert "warning: the step of compiled PyTorch failed: no C compiler" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["device", "numpy"])
def test_a_wrong_encryption_is_an_error(tmp_path, monkeypatch, place):
    state = session(tmp_path)
    right = state.method.encrypt
    monkeypatch.setattr(
        BlockScramblingPixelShuffling,
        "encrypt",
        lambda self, images, *more: (
            right(images, *more) ^ 1 if isinstance(images, np.ndarray) == (place == "numpy") else right(images, *more)
        ),
    )
    (row,) = promises.encryption(state).run()
    assert row["value"] == f"{3 * 16 * 16 * 3:,} values differ" and row["verdict"] == "MISSED"
    with pytest.raises(UserError, match=r"a promise of the documentation is not kept \(encryption on the device"):
        command.check([row])


@pytest.mark.slow
def test_a_wrong_encryption_inside_of_steps_is_an_error(tmp_path):
    state = session(tmp_path)
    state.program_secret = {name: np.roll(array, 1, -1) for name, array in state.program_secret.items()}
    (row,) = promises.encryption(state).run()
    assert row["verdict"] == "MISSED"
    exact, _ = promises.exactness(state).run()
    assert exact["verdict"] == "MISSED" and exact["broken"]


@pytest.mark.slow
def test_a_wrong_adaptation_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(adaptation, "adapt", lambda params, permutations: params)
    rows = list(promises.exactness(session(tmp_path)).run())
    assert [row.get("verdict") for row in rows] == ["MISSED", None] and rows[0]["value"] > 1e-5
    with pytest.raises(UserError, match=r"not kept \(adapted model on encrypted images, float32"):
        command.check(rows)


@pytest.mark.parametrize("deterministic", [False, True])
def test_runs_that_differ_are_an_error_if_they_are_deterministic(tmp_path, monkeypatch, deterministic):
    results = iter(
        [{"params": {"a": np.array([1, 2, 3], np.float32)}}, {"params": {"a": np.array([1, 2.5, 3], np.float32)}}]
    )

    def step(self, batch_size, *, encrypted, **fields):
        assert encrypted and fields == ({"deterministic": True} if deterministic else {})
        return argparse.Namespace(run=lambda count: None, state=next(results))

    monkeypatch.setattr(Session, "step", step)
    row = next(promises.determinism(session(tmp_path), deterministic=deterministic).run())
    assert row["value"] == 0.5 and row["reference"] == "largest difference of a parameter; 1 of 3 values differ"
    assert row.get("verdict") == ("MISSED" if deterministic else None)
    assert row.get("broken", False) == deterministic


def test_commands_of_the_documentation_are_understood(monkeypatch):
    understood = []
    monkeypatch.setattr(importlib.import_module("benchmarks.quick"), "run", understood.append)
    commands = [words for block in blocks(ROOT / "docs" / "speed.md") for words in block.commands]
    for words in commands:
        if words[:3] == ["python", "-m", "benchmarks"]:
            program.main(words[3:])
    assert [parsed.cifar10 for parsed in understood] == ["", "DIR"]


@pytest.mark.slow
def test_cifar10_trains_on_a_data_set_or_on_random_images(tmp_path, monkeypatch):
    dataset = random_dataset(8, 4, 16, num_classes=10)
    monkeypatch.setattr(speed, "_random_dataset", lambda session, train, test: dataset)
    for source, name in ((dataset, "CIFAR-10"), (None, "random images like CIFAR-10")):
        (row,) = speed.cifar10(session(tmp_path), source, 2, 4).run()
        assert row["measure"] == f"2 epochs of {name}, ViT-Nano/8, batch 4"
        assert row["result"]["epochs"] == 2 and row["result"]["test_examples"] == 4 and row["value"] > 0


def test_a_folder_without_cifar10_is_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(UserError, match="no prepared data set 'cifar10'"):
        program.main(["quick", "--cifar10", str(tmp_path), "--output", str(tmp_path / "results")])
    assert not (tmp_path / "results").exists()
