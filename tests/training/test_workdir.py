import json
import os
import threading

import pytest

from ppvit_jax.errors import UserError
from ppvit_jax.training.workdir import owned


def test_a_second_run_is_refused_before_it_touches_anything(tmp_path):
    with owned(tmp_path / "run"):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        refused = pytest.raises(UserError, match=rf"another process \({os.getpid()} on .+\) is writing to .*/run: wait")
        with refused, owned(tmp_path / "run"):
            raise AssertionError("two runs are in one workdir")
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with owned(tmp_path / "run"):
        pass


def test_of_runs_that_start_at_the_same_moment_one_goes_on(tmp_path):
    barrier, done, outcomes = threading.Barrier(4), threading.Event(), []

    def start():
        barrier.wait()
        try:
            with owned(tmp_path / "run"):
                outcomes.append("runs")
                done.wait(10)
        except UserError:
            outcomes.append("is refused")
            if outcomes.count("is refused") == 3:
                done.set()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["is refused"] * 3 + ["runs"]


def test_a_run_that_fails_leaves_no_lock(tmp_path):
    with pytest.raises(KeyError), owned(tmp_path):
        raise KeyError
    with owned(tmp_path):
        pass


def test_a_complete_run_needs_no_lock(tmp_path):
    """So its result can be read from a folder that cannot be written."""
    (tmp_path / "result.json").write_text(json.dumps({}))
    with owned(tmp_path), owned(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_workdir_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot use the workdir .*/file: File exists"), owned(tmp_path / "file"):
        pass
    (tmp_path / "run" / ".lock").mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot use the workdir .*/run: Is a directory"), owned(tmp_path / "run"):
        pass
