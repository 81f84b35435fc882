import pytest

from ppvit_jax.experiments import runs


@pytest.mark.parametrize(("seconds", "estimate"), [(20, "about 40 s left for all"), (600, "about 20 min left for all")])
def test_the_time_left_counts_the_runs_that_were_trained(tmp_path, monkeypatch, capsys, seconds, estimate):
    (tmp_path / "complete").mkdir()
    (tmp_path / "complete" / "result.json").touch()
    now = 0.0
    monkeypatch.setattr(runs.time, "monotonic", lambda: now)
    for name in runs.announce_runs("arm", [(name, tmp_path / name) for name in ("complete", "a", "b", "c")]):
        now += 0 if name == "complete" else seconds
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["arm 1 of 4: complete", "arm 2 of 4: a"]
    assert lines[2] == f"arm 3 of 4: b, {estimate}"
