import json

import pytest

from ppvit_jax.errors import UserError
from ppvit_jax.training.results import json_line, read_history, read_result

RESULT = {
    "dataset": "noise",
    "epochs": 1,
    "train_examples": 8,
    "test_loss": 0.5,
    "test_accuracy": 0.25,
    "test_examples": 4,
    "best_test_accuracy": 0.25,
}


def test_a_result_is_read_as_it_was_written(tmp_path):
    assert read_result(tmp_path) is None
    (tmp_path / "result.json").write_text(json.dumps(RESULT))
    assert read_result(tmp_path) == RESULT


@pytest.mark.parametrize("text", ["", json.dumps(RESULT)[:-20], "[]", "7", '{"dataset": "noise"}', "\x00\x00"])
def test_a_truncated_or_foreign_result_is_one_line(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(UserError, match=r"result\.json is damaged, or not the result of a run: remove it"):
        read_result(tmp_path)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_result_of_a_run_that_diverged_is_refused(tmp_path, value):
    (tmp_path / "result.json").write_text(json.dumps(RESULT).replace("0.5", value))
    with pytest.raises(UserError, match=rf"not finite \({value}\), because the training diverged: start again"):
        read_result(tmp_path)


def test_only_the_last_line_of_the_metrics_may_be_cut_short(tmp_path):
    lines = [{"kind": "step", "step": 1}, {"kind": "epoch", "step": 1}]
    file = tmp_path / "metrics.jsonl"
    assert read_history(tmp_path) == []
    file.write_text("".join(map(json_line, lines)) + '{"kind": "st')
    assert read_history(tmp_path) == lines
    assert read_history(tmp_path, "epoch") == lines[1:]
    file.write_text('{"kind": "st\n' + json_line(lines[0]))
    with pytest.raises(UserError, match=r"line 1 of .*metrics\.jsonl is damaged, or not of a run"):
        read_history(tmp_path)


@pytest.mark.parametrize("line", ["3", "null", "[]", '{"kind": "step"}', '{"step": 1}', '{"kind": 1, "step": "a"}'])
def test_another_programs_metrics_are_one_line(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(f"{line}\n{line}\n")
    with pytest.raises(UserError, match=r"line 1 of .* is damaged, or not of a run"):
        read_history(tmp_path)


def test_a_line_has_null_in_place_of_numbers_that_json_lacks():
    line = json_line({"kind": "step", "loss": float("nan"), "rate": float("-inf"), "nested": [1.5, float("inf")]})
    assert line == '{"kind": "step", "loss": null, "rate": null, "nested": [1.5, null]}\n'
