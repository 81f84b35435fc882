"""Commands as programs: one line for all that users and their machines cause, and the exit status."""

import argparse
import contextlib
import errno
import json
import logging
import os
import re
import select
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from ppvit_jax.errors import Range, UserError, resumes
from ppvit_jax.files import refuse_scheme

# Exit status of a shell for a program whose output nobody reads any more: 128 plus the number of SIGPIPE.
EXIT_CLOSED_PIPE = 141
_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "choose a disk that takes larger files",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "check the path",
    errno.EEXIST: "choose another path",
    errno.ENOTDIR: "choose a path whose folders are not files",
    errno.EISDIR: "choose a path that is not a folder",
    errno.ENOTEMPTY: "choose another path",
    errno.EMFILE: "raise the limit of open files, as by ulimit -n 4096",
    errno.ENFILE: "close other programs",
    errno.ESTALE: "mount the folder again",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose a path that you may use",
    errno.EPERM: "choose a path that you may use",
    errno.ELOOP: "remove the link that leads back to itself",
}
_SAME_COMMAND = "run the same command again to continue"
_MEMORY = re.compile("RESOURCE_EXHAUSTED|[Oo]ut of memory|DefaultCPUAllocator: can't allocate memory")


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
    """Runs a command; an error that the user or the machine causes becomes one line on standard error.

    Letters that the encoding of the output lacks are printed as escapes. If nobody reads the output any more, the
    command ends without a message.

    Returns:
      The exit status.
    """
    with _printing_all_letters():
        try:
            refuse_schemes(arguments)
            try:
                command(arguments)
            finally:
                # A failure to print must not wait for the end of the process, when it can no longer be told.
                if sys.exc_info()[0] in (None, SystemExit):
                    _flush(sys.stdout)
        except KeyboardInterrupt as error:
            _print_line(f"interrupted: {_SAME_COMMAND}" if resumes(error) else "interrupted")
            return 130
        except Exception as error:
            if isinstance(error, BrokenPipeError) and any(map(_is_closed, (sys.stdout, sys.stderr))):
                return EXIT_CLOSED_PIPE
            if (line := describe(error)) is None:
                raise
            _print_line(f"error: {line}")
            return 1
        finally:
            for stream in (sys.stdout, sys.stderr):
                _discard_unprintable(stream)
    return 0


class Number(argparse.Action):
    """Action of an argument that is a number, or several: refuses numbers outside its `range`."""

    def __init__(self, *args: Any, range: Range, **options: Any):
        super().__init__(*args, **{"type": int if range.whole else float} | options)
        self._range = range

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Stores the numbers.

        Raises:
          UserError: a number is outside the range.
        """
        for value in values if isinstance(values, list) else [values]:
            self._range.check(option or self.dest, value)
        setattr(namespace, self.dest, values)


def refuse_schemes(arguments: Sequence[str]) -> None:
    """Refuses arguments, or values of `--name=value`, that name a place outside this machine's file system.

    An https URL may name a checkpoint.

    Raises:
      UserError: a value starts like gs:// or file://.
    """
    before = ""
    for text in arguments:
        option, _, value = text.partition("=") if text.startswith("-") else (before, "", text)
        # A checkpoint may be a URL, which needs the SHA-256 of its file.
        if not (value.startswith("https://") and ("#sha256=" in value or option.endswith("checkpoint"))):
            refuse_scheme(value)
        before = text


def describe(error: Exception) -> str | None:
    """Returns one line about an error that the user or the machine causes; None for an error of the program."""
    if isinstance(error, UserError):
        line = str(error)
    elif isinstance(error, OSError):
        line = _describe_os_error(error)
    elif isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _MEMORY.search(str(error))):
        reason = f" ({str(error).splitlines()[0][:200]})" if str(error) else ""
        line = f"out of memory{reason}: use smaller batches, images or models, or a machine with more memory"
    elif _is_homeless(error):
        line = "the home folder is unknown: set HOME, or give paths without ~"
    elif isinstance(error, RuntimeError | AssertionError) and (fault := _device_fault()) is not None:
        platforms = os.environ.get("JAX_PLATFORMS")
        wanted = f" for JAX_PLATFORMS={platforms}" if platforms else ""
        line = f"JAX has no device{wanted}{fault}: set JAX_PLATFORMS=cpu, or install JAX for the device"
    elif isinstance(error, UnicodeEncodeError):
        name = ascii(error.object[:100])
        line = f"{name} cannot be written in the encoding {error.encoding}: rename it, or set PYTHONUTF8=1"
    elif isinstance(error, RecursionError) and _is_in(error, json.__file__.removesuffix("__init__.py")):
        line = "a JSON file is nested too deeply to read: it is damaged, so get it again"
    elif type(error).__name__ == "SafetensorError":
        line = f"cannot read or write a .safetensors file ({error}): check the file and the disk"
    else:
        return None
    return " ".join(line.split())


def _describe_os_error(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
    again = _SAME_COMMAND if resumes(error) else "run the command again"
    return f"{where}{reason}; {_ADVICE.get(error.errno or 0, 'fix this')}, then {again}"


def _is_homeless(error: Exception) -> bool:
    text = str(error)
    return (isinstance(error, RuntimeError) and "home directory" in text) or (
        isinstance(error, KeyError) and "getpwuid" in text
    )


def _is_in(error: Exception, file: str) -> bool:
    """Returns True if an error was raised in this file or folder, or in what it called."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(file in frame.f_code.co_filename.replace("\\", "/") for frame, _ in frames)


def _device_fault() -> str | None:
    """Returns the reason for which JAX has no device, in parentheses; None if it has one or is not in use."""
    if (jax := sys.modules.get("jax")) is None:
        return None
    # JAX removes its own frames from a traceback, and some of these errors have no text, so ask JAX again.
    try:
        jax.devices()
    except Exception as error:
        reason = str(error).partition(" (set JAX_PLATFORMS")[0]
        return f" ({reason})" if reason else ""
    return None


@contextlib.contextmanager
def _printing_all_letters() -> Iterator[None]:
    """Prints letters that an output cannot encode as escapes, such as \\xdf, while the context lasts."""
    changed = []
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            changed.append((reconfigure, stream.errors))
            reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for reconfigure, errors in changed:
            # A closed stream cannot be changed back, and needs not be.
            with contextlib.suppress(OSError, ValueError):
                reconfigure(errors=errors)


def _print_line(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)


def _flush(stream: TextIO | None) -> None:
    if stream is not None and not stream.closed:
        stream.flush()


def _is_closed(stream: TextIO | None) -> bool:
    """Returns True unless the stream is known to have a reader."""
    try:
        assert stream is not None
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return bool(poll.poll(0))
    # A stream without a descriptor, or a system without poll.
    except (AssertionError, AttributeError, OSError, ValueError):
        return True


def _discard_unprintable(stream: TextIO | None) -> None:
    """Discards text that cannot be printed, which Python would try again, and complain about, as the process ends."""
    try:
        _flush(stream)
    except OSError:
        with contextlib.suppress(OSError, ValueError, AttributeError), open(os.devnull, "w") as nowhere:  # noqa: PTH123
            assert stream is not None
            os.dup2(nowhere.fileno(), stream.fileno())


def _is_abandoned(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


def _is_retrieved(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()
