"""What every command shares: one line for a user's mistake, and the exit status."""

import errno
import sys
from collections.abc import Callable

from ppvit_jax.errors import UserError

# A full, read-only, failing or foreign disk, at whatever place it shows.
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}


def run_command(command: Callable[[list[str]], None], arguments: list[str]) -> int:
    """Runs a command; a user's mistake becomes one line on standard error. Returns the exit status."""
    try:
        command(arguments)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        print(f"error: {what}; put it right, then run the same command again to continue", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: run the same command again to continue", file=sys.stderr)
        return 130
    return 0
