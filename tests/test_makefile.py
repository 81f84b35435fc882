"""`make check` and `make test`, with programs that only say how they were called."""

import os
import shutil
import subprocess

import pytest
from helpers.command import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="this system has no make")
PROGRAMS = ("ruff", "pyright", "python")


@pytest.fixture
def make(tmp_path):
    """A function that makes a target where the named programs fail; returns the exit status and the calls."""
    for name in ("Makefile", "pyproject.toml", *(path.name for path in ROOT.glob("requirements*.txt"))):
        shutil.copy2(ROOT / name, tmp_path / name)
    (folder := tmp_path / "venv" / "bin").mkdir(parents=True)
    # Newer than what they are made of, in this order: nothing is installed.
    for name in ("created", "installed", "installed-test"):
        (tmp_path / "venv" / name).touch()

    def make(target, *failing):
        calls = tmp_path / "calls"
        calls.write_text("")
        for name in PROGRAMS:
            script = f'#!/bin/sh\necho {name} "$@" >> "{calls}"\nexit {int(name in failing)}\n'
            (folder / name).write_text(script)
            (folder / name).chmod(0o755)
        # Without the flags of a make that runs these tests.
        environment = os.environ | {"MAKEFLAGS": ""}
        command = ["make", target, "VENV=venv"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        return done.returncode, calls.read_text().splitlines()

    return make


@pytest.mark.parametrize("target", ["check", "test"])
def test_a_failure_of_any_check_fails_the_target(make, target):
    assert make(target)[0] == 0
    for name in PROGRAMS:
        assert make(target, name)[0] != 0, name


def test_check_leaves_out_the_slow_tests_and_test_does_not(make):
    for target, slow in (("check", False), ("test", True)):
        _, calls = make(target)
        assert "ruff check" in calls and "ruff format --check" in calls
        assert any(call.startswith("pyright ") for call in calls)
        (tests,) = (call for call in calls if call.startswith("python -m pytest"))
        assert ("-m not slow" not in tests) == slow
