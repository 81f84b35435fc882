"""Lock of a folder, which one process at a time may write to. The system releases it when its process ends."""

import errno
import os
import sys
from pathlib import Path
from typing import IO

from ppvit_jax.errors import UserError, print_note

# Errors of a lock that another process holds.
_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)
# Windows locks a range of bytes, which others then cannot read, so the range lies behind any content.
_RANGE_START = 2**40


def lock(file: IO[bytes], folder: Path, process: str = "another process") -> None:
    """Takes the lock of a folder until `file` is closed or this process ends, however it ends.

    Where the file system has no locks, as on some network drives, a note on standard error says so.

    Args:
      file: a file in the folder, open for writing.
      folder: the folder, for messages.
      process: the process that may hold the lock, for the message.

    Raises:
      UserError: another process holds the lock.
    """
    try:
        _take(file)
    except OSError as error:
        if error.errno in _HELD:
            raise held(folder, process) from None
        print_note(f"{folder} cannot be locked ({error.strerror}), so start no other process that writes to it")


def held(folder: Path, process: str = "another process") -> UserError:
    """Returns the error that refuses a folder to which another process is writing."""
    return UserError(f"{process} is writing to {folder}: wait for it, or choose a new folder")


def _take(file: IO[bytes]) -> None:
    """Locks a file without waiting; raises OSError if it is locked already, or cannot be locked."""
    if sys.platform == "win32":
        import msvcrt

        position = os.lseek(file.fileno(), 0, os.SEEK_CUR)
        os.lseek(file.fileno(), _RANGE_START, os.SEEK_SET)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(file.fileno(), position, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
