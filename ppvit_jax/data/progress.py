"""Progress of long work, reported in one line on stderr."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_SILENT_SECONDS = 3.0
_TERMINAL_INTERVAL = 0.5
_LOG_INTERVAL = 10.0


class Progress:
    """Reports the rate and the remaining time of work that takes more than 3 seconds.

    On a terminal, one line is rewritten; elsewhere, a line is printed every 10 seconds.

    Args:
      activity: description of the work, such as "decoding".
      total: number of units of work; 0 if unknown.
      unit: name of the units.
      stream: stream to write to; None for stderr.
      begun: units that were done before; they do not count for the rate.
    """

    def __init__(self, activity: str, total: int, unit: str = "images", stream: TextIO | None = None, begun: int = 0):
        self._activity, self._total, self._unit = activity, total, unit
        self._stream = sys.stderr if stream is None else stream
        self._start = time.monotonic()
        self._next = self._start + _SILENT_SECONDS
        self._line_open = False
        self._begun = begun

    def update(self, done: int) -> None:
        """Reports that `done` units are done."""
        now = time.monotonic()
        if now < self._next:
            return
        rate = max(done - self._begun, 1) / (now - self._start)
        line = (
            f"{self._activity}: {done:,} {self._unit}, {f'{rate:,.0f}' if rate >= 10 else f'{rate:.2f}'} {self._unit}/s"
        )
        if self._total:
            line += f", {(self._total - done) / rate:.0f} s left of {self._total:,} {self._unit}"
        if self._stream.isatty():
            self._stream.write("\r" + line.ljust(100))
            self._next, self._line_open = now + _TERMINAL_INTERVAL, True
        else:
            self._stream.write(line + "\n")
            self._next = now + _LOG_INTERVAL
        self._stream.flush()

    def close(self) -> None:
        """Ends the line on a terminal."""
        if self._line_open:
            self._stream.write("\n")
            self._line_open = False
