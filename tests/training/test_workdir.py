import json
import os
import threading

import pytest

from ppvit_jax.errors import UserError
from ppvit_jax.training import workdir
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


def test_a_run_that_fails_leaves_no_lock_and_no_empty_folder(tmp_path):
    for folder in (tmp_path, tmp_path / "new"):
        with pytest.raises(KeyError), owned(folder):
            raise KeyError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), owned(tmp_path / "new"):
        (tmp_path / "new" / "secret.key").touch()
        raise KeyError
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "secret.key"]


def test_the_file_of_a_killed_process_is_taken_over(tmp_path):
    (tmp_path / ".lock").write_text("1 on another machine, and a text that is longer than the next one\n")
    with owned(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()} on ")


def test_a_file_that_was_removed_before_it_is_locked_does_not_count(tmp_path, monkeypatch):
    """A process opens the file, and then the owner of the lock ends, so a third one makes a new file."""
    lock = workdir.lock

    def lock_too_late(file, *arguments):
        monkeypatch.setattr(workdir, "lock", lock)
        (tmp_path / ".lock").unlink()
        lock(file, *arguments)

    monkeypatch.setattr(workdir, "lock", lock_too_late)
    with owned(tmp_path), pytest.raises(UserError, match="another process"), owned(tmp_path):
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
