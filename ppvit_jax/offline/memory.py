"""Peak memory of a process."""

import re
import resource
import sys
from pathlib import Path


def peak_memory() -> str:
    """Returns the peak memory of this process as text, such as "peak memory 350 MiB"."""
    return f"peak memory {peak_bytes() / 2**20:,.0f} MiB"


def peak_bytes() -> int:
    """Returns the peak memory of this process in bytes."""
    try:
        # The kernel's other count begins with the memory of the parent process when it started this one.
        match = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        match = None
    if match:
        return int(match[1]) * 1024
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
