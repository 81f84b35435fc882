"""Commands as programs: one line for a user's mistake, and the exit status."""

import errno
import logging
import sys
from collections.abc import Callable

from ppvit_jax.errors import UserError

# Errors of a disk that is full, read-only or failing, or that belongs to others, wherever they occur.
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}


def run_program(command: Callable[[list[str]], None]) -> int:
    """Runs a command as the program of this process, with the arguments of the process.

    When one read of a damaged state fails, Orbax abandons the others. Each of these prints a traceback, some just
    before the process ends, so they are silenced until then.

    Returns:
      The exit status.
    """
    hooks = sys.excepthook, sys.unraisablehook
    sys.excepthook = lambda kind, error, trace: None if _is_abandoned(error) else hooks[0](kind, error, trace)
    sys.unraisablehook = lambda fault: None if _is_abandoned(fault.exc_value) else hooks[1](fault)
    logging.getLogger("asyncio").addFilter(_is_retrieved)
    try:
        return run_command(command, sys.argv[1:])
    except BaseException:
        # An error of the program keeps its traceback.
        sys.excepthook, sys.unraisablehook = hooks
        raise


def run_command(command: Callable[[list[str]], None], arguments: list[str]) -> int:
    """Runs a command; a user's mistake becomes one line on standard error.

    Returns:
      The exit status.
    """
    try:
        command(arguments)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        print(f"error: {message}; fix this, then run the same command again to continue", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: run the same command again to continue", file=sys.stderr)
        return 130
    return 0


def _is_abandoned(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


def _is_retrieved(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()
