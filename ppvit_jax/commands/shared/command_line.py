"""Commands as programs: one line for a user's mistake, and the exit status."""

import errno
import logging
import sys
from collections.abc import Callable

from ppvit_jax.errors import UserError

# A full, read-only, failing or foreign disk, at whatever place it shows.
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}


def run_program(command: Callable[[list[str]], None]) -> int:
    """Runs a command as this process's program, with the process's arguments. Returns the exit status.

    Orbax abandons its other reads of a damaged state when one fails. Each prints a traceback, some just before the
    process ends, so that they are silenced until then.
    """
    hooks = sys.excepthook, sys.unraisablehook
    sys.excepthook = lambda kind, error, trace: None if _is_abandoned(error) else hooks[0](kind, error, trace)
    sys.unraisablehook = lambda fault: None if _is_abandoned(fault.exc_value) else hooks[1](fault)
    logging.getLogger("asyncio").addFilter(_is_retrieved)
    try:
        return run_command(command, sys.argv[1:])
    except BaseException:
        # An error of the program itself keeps its traceback.
        sys.excepthook, sys.unraisablehook = hooks
        raise


def run_command(command: Callable[[list[str]], None], arguments: list[str]) -> int:
    """Runs a command; a user's mistake becomes one line on standard error. Returns the exit status."""
    try:
        command(arguments)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        print(f"error: {message}; put it right, then run the same command again to continue", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: run the same command again to continue", file=sys.stderr)
        return 130
    return 0


def _is_abandoned(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


def _is_retrieved(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()
