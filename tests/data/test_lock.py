import errno
import signal
import subprocess
import sys

import pytest

from ppvit_jax.data.lock import lock
from ppvit_jax.errors import UserError

fcntl = pytest.importorskip("fcntl")
# A process that holds a lock until it is killed; it does not take the seconds to import the package.
_HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "r+b")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_holder_is_refused_until_the_first_has_closed_its_file(tmp_path):
    with (tmp_path / "a").open("ab") as first, (tmp_path / "a").open("r+b") as second:
        lock(first, tmp_path)
        with pytest.raises(UserError, match=r"the run 7 is writing to .*: wait for it, or choose a new folder"):
            lock(second, tmp_path, "the run 7")
        first.close()
        lock(second, tmp_path)


def test_a_killed_process_leaves_no_lock(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    process = subprocess.Popen([sys.executable, "-c", _HOLDER, tmp_path / "a"], stdout=subprocess.PIPE)
    with process, (tmp_path / "a").open("r+b") as file:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="another process is writing to"):
            lock(file, tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
        lock(file, tmp_path)


def test_a_file_system_without_locks_gets_a_note(tmp_path, monkeypatch, capsys):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with (tmp_path / "a").open("ab") as file:
        lock(file, tmp_path)
    assert capsys.readouterr().err == (
        f"note: {tmp_path} cannot be locked (No locks available), so start no other process that writes to it\n"
    )
