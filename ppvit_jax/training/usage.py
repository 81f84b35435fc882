"""Time and memory that a run takes, for its report."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from ppvit_jax.training.results import Result


class Usage:
    """Clock of a run that may be interrupted, and its peak memory."""

    def __init__(self) -> None:
        self._before, self._start = 0.0, time.perf_counter()

    def resume(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Continues where the lines of metrics.jsonl end, of which earlier processes wrote those with a time."""
        self._before = max((line.get("seconds") or 0.0 for line in history), default=0.0)

    def measure(self) -> dict[str, float | None]:
        """Returns the fields `seconds` and `peak_memory_bytes` of a line of metrics.jsonl, as of now."""
        memory = peak_memory()
        return {"seconds": self._before + time.perf_counter() - self._start, "peak_memory_bytes": memory and memory[0]}

    @staticmethod
    def add_to(result: Result, history: Sequence[Mapping[str, Any]]) -> None:
        """Adds time and memory, if it is known, to the content of result.json, from all lines of metrics.jsonl."""
        result["seconds"] = max((line.get("seconds") or 0.0 for line in history), default=0.0)
        if (memory := peak_memory()) is not None:
            earlier = [line.get("peak_memory_bytes") or 0 for line in history]
            result["peak_memory_bytes"] = max([memory[0], *earlier])
            result["peak_memory_of"] = memory[1]


def peak_memory() -> tuple[int, str] | None:
    """Returns the peak in bytes and its place, "device" or "process"; None if the system does not tell.

    The place is "device" where a device of this process counts its memory. CPUs do not.
    """
    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [peak["peak_bytes_in_use"] for peak in statistics if "peak_bytes_in_use" in peak]
    if peaks:
        return max(peaks), "device"
    try:
        import resource
    except ImportError:  # Windows has no such module.
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes on Linux, bytes on macOS.
    return (peak if sys.platform == "darwin" else peak * 1024), "process"
