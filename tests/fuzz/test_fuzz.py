"""A few of the cases of `python -m tests.fuzz`, with a seed that never changes."""

import pytest

from fuzz import harness, seeds


@pytest.mark.slow
@pytest.mark.parametrize(("fast", "count"), [(True, 130), pytest.param(False, 120, marks=pytest.mark.slow)])
def test_damaged_files_give_one_line_each(fast, count, tmp_path):
    made = seeds.make(tmp_path / "seeds", fast=fast)
    findings = [finding for finding in harness.fuzz(range(count), 19, tmp_path, made) if finding is not None]
    assert not findings, "\n".join(map(str, findings))


def test_the_fuzzer_finds_what_it_should(tmp_path, monkeypatch):
    made = [seed for seed in seeds.make(tmp_path / "seeds", fast=True) if seed.name == "key"]

    def find(command):
        monkeypatch.setattr(harness.commands, "main", command)
        return next(finding.fault for finding in harness.fuzz(range(1), 0, tmp_path, made) if finding)

    def write(arguments):
        (tmp_path / "case" / "here" / "file").touch()

    assert find(lambda arguments: print(1 / 0)) == "traceback"
    assert find(write) == "files outside the output"
    monkeypatch.setattr(harness, "MEMORY", 1)
    assert find(lambda arguments: None).endswith(" GB")
